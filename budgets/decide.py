"""The ledger's rules, pure: operations applied in order to the counters and holds that a store loaded.

A counter is a flat sequence of integers: what was used in each unit, then what is held in each, in the order
of `UNITS`. A batch touches many of them, so they are plain integers rather than objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

from budgets.amounts import Amount
from budgets.ledger import (
    Correct,
    Crossed,
    Expire,
    Expired,
    ExpiredHold,
    Held,
    Hold,
    Late,
    Op,
    Refused,
    Renew,
    Renewed,
    Result,
    Settle,
    Settled,
    Take,
    Taken,
    TopUp,
)
from budgets.limits import Bound
from budgets.tightest import NOTHING, WIDTH, lacks, left_under, refusal
from budgets.watching import Watch

TOMBSTONE_US = 24 * 3600 * 1_000_000
"""How long an expired hold is remembered, so that a late settlement learns what was charged."""


class LedgerBroken(Exception):
    """The stored holds and counters contradict each other. Nothing of the batch was saved."""


OnDrift = Callable[[str, str], None]
"""Told the key of a counter, and the id of a hold that is larger than all that is held in it."""


def raise_drift(key: str, hold_id: str) -> None:
    raise LedgerBroken(f"counter {key!r} holds less than what hold {hold_id} set aside in it")


class StoredHold(NamedTuple):
    """A hold as a store keeps it. Amounts are in the order of `UNITS`.

    Where `expired_us` is set it is a tombstone: `floor` was charged then, and `lease_until_us` is when it is
    forgotten.
    """

    id: str
    keys: tuple[str, ...]
    amount: tuple[int, ...]
    floor: tuple[int, ...]
    lease_until_us: int
    created_us: int
    expired_us: int | None


@dataclass(slots=True)
class Needs:
    """What a store must load before it decides."""

    keys: set[str] = field(default_factory=set[str])
    """Of counters. One that isn't there counts nothing, but must not come into being meanwhile."""
    beside: set[str] = field(default_factory=set[str])
    """Of counters that are needed where they are there: nothing is begun in them any more."""
    ending: set[str] = field(default_factory=set[str])
    """Ids of holds whose counters are needed too."""
    corrected: set[str] = field(default_factory=set[str])
    """Ids of expired holds whose counters are needed too."""
    renewed: set[str] = field(default_factory=set[str])
    due_us: int | None = None
    """All holds whose lease ended by then are needed, where it is set."""

    @property
    def holds(self) -> set[str]:
        return self.ending | self.corrected | self.renewed

    def counters_of(self, holds: Iterable[StoredHold], watch: Watch | None, now_us: int) -> None:
        """Adds the counters that ending `holds`, as loaded, takes."""
        due_us = self.due_us
        for stored in holds:
            if stored.expired_us is not None:
                wanted = stored.id in self.corrected  # what other tombstones charged stands already
            else:
                wanted = stored.id in self.ending or (due_us is not None and stored.lease_until_us <= due_us)
            if wanted:
                self.keys.update(stored.keys)
                if watch is not None:
                    for key in stored.keys:
                        self.beside.update(watch.summed(key, now_us))

    def add_bounds(self, bounds: Iterable[Bound], now_us: int) -> None:
        for bound in bounds:
            self.keys.add(bound.key)
            buckets = bound.buckets
            if buckets is not None:
                self.keys.update(buckets.near, buckets.later_by(now_us))
                self.beside.update(buckets.earlier)


@dataclass(slots=True)
class Decision:
    """The results, one per operation in order, and what a store must now save."""

    results: list[Result] = field(default_factory=list[Result])
    counters: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    opened: dict[str, StoredHold] = field(default_factory=dict[str, StoredHold])
    changed: dict[str, StoredHold] = field(default_factory=dict[str, StoredHold])
    """With another lease, or as a tombstone."""
    topped_up: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    """What holds that were opened before now hold, by id."""
    closed: list[str] = field(default_factory=list[str])


def needs(ops: Iterable[Op], now_us: int, watch: Watch | None = None) -> Needs:
    """What deciding `ops` takes, but for the counters of the holds it names."""
    found = Needs()
    for op in ops:
        match op:
            case Hold():
                found.add_bounds(op.bounds, now_us)
            case Settle():
                found.ending.add(op.id)
            case Take():
                found.add_bounds(op.bounds, now_us)
                if watch is not None:
                    for bound in op.bounds:
                        found.beside.update(watch.summed(bound.key, now_us))
            case TopUp():
                found.add_bounds(op.bounds, now_us)
                found.ending.add(op.id)
            case Correct():
                found.corrected.add(op.id)
            case Renew():
                found.renewed.update(op.ids)
            case Expire():
                found.due_us = op.now_us if found.due_us is None else max(found.due_us, op.now_us)
            case _:
                assert_never(op)
    return found


def decide(
    ops: Iterable[Op],
    counters: Mapping[str, Sequence[int]],
    holds: Mapping[str, StoredHold],
    now_us: int,
    on_drift: OnDrift = raise_drift,
    watch: Watch | None = None,
) -> Decision:
    """Apply `ops` in order. Changes neither mapping; a counter that isn't there is at nothing.

    A counter that would fall below 0 means that the stored holds and counters disagree, which only an edit
    from outside brings about. `on_drift` is told; if it returns, the counter stays at 0. Levels that `watch`
    knows are reported by the operation that reaches them.
    """
    book = _Book(counters, holds, now_us, on_drift, watch)
    results = book.decision.results
    for op in ops:
        match op:
            case Hold():
                results.append(book.hold(op))
            case Settle():
                results.append(book.settle(op))
            case Take():
                results.append(book.take(op))
            case TopUp():
                results.append(book.top_up(op))
            case Correct():
                results.append(book.correct(op))
            case Renew():
                results.append(book.renew(op))
            case Expire():
                results.append(book.expire(op.now_us))
            case _:
                assert_never(op)
    return book.decision


class _Book:
    """The state while one batch is decided: what was loaded, under what has changed."""

    def __init__(
        self,
        counters: Mapping[str, Sequence[int]],
        holds: Mapping[str, StoredHold],
        now_us: int,
        on_drift: OnDrift,
        watch: Watch | None,
    ) -> None:
        self._counters = counters
        self._holds = holds
        self._now_us = now_us
        self._on_drift = on_drift
        self._watch = watch
        self._gone: set[str] = set()
        self.decision = Decision()

    def hold(self, op: Hold) -> Held | Refused:
        asked = op.amount.values()
        if lacking := lacks(op.bounds, asked, self._read, self._now_us, begins=True):
            return refusal(lacking, left_under(op.bounds, self._read, self._now_us))
        # Once each: two bounds may share a counter.
        keys = tuple(dict.fromkeys([bound.key for bound in op.bounds]))
        self._set_aside(keys, asked)
        self.decision.opened[op.id] = StoredHold(
            op.id, keys, asked, op.floor.values(), op.lease_until_us, self._now_us, None
        )
        return Held(left_under(op.bounds, self._read, self._now_us))

    def top_up(self, op: TopUp) -> Held | Refused | Late:
        stored = self._find(op.id)
        if stored is None or stored.expired_us is not None:
            return _late(stored)
        if {bound.key for bound in op.bounds} != set(stored.keys):
            raise ValueError(f"hold {op.id} stands under other bounds than those it is topped up under")
        asked = op.amount.values()
        if lacking := lacks(op.bounds, asked, self._read, self._now_us, begins=False):
            return refusal(lacking)
        self._set_aside(stored.keys, asked)
        amount = tuple([held + more for held, more in zip(stored.amount, asked, strict=True)])
        self._replace(stored._replace(amount=amount))
        if op.id not in self.decision.opened:
            self.decision.topped_up[op.id] = amount
        return Held(left_under(op.bounds, self._read, self._now_us))

    def take(self, op: Take) -> Taken | Refused:
        asked = op.amount.values()
        if lacking := lacks(op.bounds, asked, self._read, self._now_us, begins=False):
            return refusal(lacking)
        crossed: list[Crossed] = []
        for key in dict.fromkeys([bound.key for bound in op.bounds]):
            cell = self._writable(key)
            for position, figure in enumerate(asked):
                cell[position] += figure
            self._watched(key, asked, crossed)
        return Taken(tuple(crossed))

    def settle(self, op: Settle) -> Settled | Late:
        stored = self._find(op.id)
        if stored is None or stored.expired_us is not None:
            return _late(stored)
        crossed: list[Crossed] = []
        self._charge(stored, op.used.values(), crossed)
        self._drop(op.id)
        return Settled(tuple(crossed))

    def correct(self, op: Correct) -> Settled | Late:
        stored = self._find(op.id)
        if stored is None or stored.expired_us is None:
            return Late(None)
        crossed: list[Crossed] = []
        if op.used is not None:
            rise = [used - least for used, least in zip(op.used.values(), stored.floor, strict=True)]
            for key in stored.keys:
                cell = self._writable(key)
                for position, figure in enumerate(rise):
                    cell[position] += figure
                self._watched(key, rise, crossed)
        self._drop(op.id)
        return Settled(tuple(crossed))

    def renew(self, op: Renew) -> Renewed:
        missing: list[str] = []
        for id_ in op.ids:
            stored = self._find(id_)
            if stored is None or stored.expired_us is not None:
                missing.append(id_)
            elif stored.lease_until_us < op.lease_until_us:
                self._replace(stored._replace(lease_until_us=op.lease_until_us))
        return Renewed(tuple(missing))

    def expire(self, now_us: int) -> Expired:
        ended: list[ExpiredHold] = []
        crossed: list[Crossed] = []
        for stored in sorted(self._due(now_us)):
            if stored.expired_us is None:
                self._charge(stored, stored.floor, crossed)
                self._replace(stored._replace(expired_us=now_us, lease_until_us=now_us + TOMBSTONE_US))
                ended.append(ExpiredHold(stored.id, Amount(*stored.floor)))
            else:
                self._drop(stored.id)
        return Expired(tuple(ended), tuple(crossed))

    def _due(self, now_us: int) -> list[StoredHold]:
        ids = dict.fromkeys([*self._holds, *self.decision.opened])
        found = [stored for id_ in ids if (stored := self._find(id_)) is not None]
        return [stored for stored in found if stored.lease_until_us <= now_us]

    def _find(self, id_: str) -> StoredHold | None:
        if id_ in self._gone:
            return None
        decision = self.decision
        return decision.opened.get(id_) or decision.changed.get(id_) or self._holds.get(id_)

    def _replace(self, stored: StoredHold) -> None:
        decision = self.decision
        (decision.opened if stored.id in decision.opened else decision.changed)[stored.id] = stored

    def _drop(self, id_: str) -> None:
        decision = self.decision
        self._gone.add(id_)
        if decision.opened.pop(id_, None) is None:
            decision.changed.pop(id_, None)
            decision.closed.append(id_)

    def _writable(self, key: str) -> list[int]:
        cell = self.decision.counters.get(key)
        if cell is None:
            cell = self.decision.counters[key] = list(self._counters.get(key, NOTHING))
        return cell

    def _set_aside(self, keys: Iterable[str], asked: Sequence[int]) -> None:
        for key in keys:
            cell = self._writable(key)
            for position, figure in enumerate(asked, WIDTH):
                cell[position] += figure

    def _charge(self, stored: StoredHold, used: Sequence[int], crossed: list[Crossed]) -> None:
        """Turn what is held into what was used, in every counter where it is held."""
        for key in stored.keys:
            cell = self._writable(key)
            for position in range(WIDTH):
                cell[position] += used[position]
                cell[position + WIDTH] -= stored.amount[position]
            if min(cell) < 0:
                self._on_drift(key, stored.id)
                cell[WIDTH:] = [max(0, held) for held in cell[WIDTH:]]
            self._watched(key, used, crossed)

    def _watched(self, key: str, rise: Sequence[int], crossed: list[Crossed]) -> None:
        """Adds the levels that `rise`, which the counter has by now, has reached."""
        watch = self._watch
        if watch is None:
            return
        if not watch.rolls:  # one counter says it all, and nearly always that nothing was reached
            cell = self._read(key)
            for level in watch.levels(key):
                used = cell[level.position]
                if used - rise[level.position] < level.at <= used:
                    crossed.append(level.crossed(key, used))
            return
        risen = [level for level in watch.levels(key) if rise[level.position]]
        if not risen:
            return
        cells = [self._read(each) for each in watch.summed(key, self._now_us)]
        for level in risen:
            used = sum([cell[level.position] for cell in cells])
            if used - rise[level.position] < level.at <= used:
                crossed.append(level.crossed(key, used))

    def _read(self, key: str) -> Sequence[int]:
        return self.decision.counters.get(key) or self._counters.get(key, NOTHING)


def _late(stored: StoredHold | None) -> Late:
    """`stored` is None or a tombstone."""
    return Late(None if stored is None else Amount(*stored.floor))
