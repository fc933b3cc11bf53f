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
)
from budgets.tightest import NOTHING, WIDTH, lacks, left_under, refusal

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
    """What a store must load before it decides. The keys of the loaded holds come on top."""

    keys: set[str] = field(default_factory=set[str])
    holds: set[str] = field(default_factory=set[str])
    due_us: int | None = None
    """All holds whose lease ended by then are needed, where it is set."""


@dataclass(slots=True)
class Decision:
    """The results, one per operation in order, and what a store must now save."""

    results: list[Result] = field(default_factory=list[Result])
    counters: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    opened: dict[str, StoredHold] = field(default_factory=dict[str, StoredHold])
    changed: dict[str, StoredHold] = field(default_factory=dict[str, StoredHold])
    closed: list[str] = field(default_factory=list[str])


def needs(ops: Iterable[Op]) -> Needs:
    """What deciding `ops` takes."""
    found = Needs()
    for op in ops:
        match op:
            case Hold() | Take():
                found.keys.update([bound.key for bound in op.bounds])
            case Settle():
                found.holds.add(op.id)
            case Renew():
                found.holds.update(op.ids)
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
) -> Decision:
    """Apply `ops` in order. Changes neither mapping; a counter that isn't there is at nothing.

    A counter that would fall below 0 means that the stored holds and counters disagree, which only an edit
    from outside brings about. `on_drift` is told; if it returns, the counter stays at 0.
    """
    book = _Book(counters, holds, now_us, on_drift)
    results = book.decision.results
    for op in ops:
        match op:
            case Hold():
                results.append(book.hold(op))
            case Settle():
                results.append(book.settle(op))
            case Take():
                results.append(book.take(op))
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
    ) -> None:
        self._counters = counters
        self._holds = holds
        self._now_us = now_us
        self._on_drift = on_drift
        self._gone: set[str] = set()
        self.decision = Decision()

    def hold(self, op: Hold) -> Held | Refused:
        asked = op.amount.values()
        if lacking := lacks(op.bounds, asked, self._read, at_gate=False):
            return refusal(lacking, self._read)
        for bound in op.bounds:
            cell = self._writable(bound.key)
            for position, figure in enumerate(asked, WIDTH):
                cell[position] += figure
        self.decision.opened[op.id] = StoredHold(
            op.id,
            tuple([bound.key for bound in op.bounds]),
            asked,
            op.floor.values(),
            op.lease_until_us,
            self._now_us,
            None,
        )
        return Held(left_under(op.bounds, self._read))

    def take(self, op: Take) -> Taken | Refused:
        asked = op.amount.values()
        if lacking := lacks(op.bounds, asked, self._read, at_gate=True):
            return refusal(lacking, self._read)
        for bound in op.bounds:
            cell = self._writable(bound.key)
            for position, figure in enumerate(asked):
                cell[position] += figure
        return Taken()

    def settle(self, op: Settle) -> Settled | Late:
        stored = self._find(op.id)
        if stored is None:
            return Late(None)
        if stored.expired_us is not None:
            return Late(Amount(*stored.floor))
        self._charge(stored, op.used.values())
        self._drop(op.id)
        return Settled()

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
        for stored in sorted(self._due(now_us)):
            if stored.expired_us is None:
                self._charge(stored, stored.floor)
                self._replace(stored._replace(expired_us=now_us, lease_until_us=now_us + TOMBSTONE_US))
                ended.append(ExpiredHold(stored.id, Amount(*stored.floor)))
            else:
                self._drop(stored.id)
        return Expired(tuple(ended))

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

    def _charge(self, stored: StoredHold, used: tuple[int, ...]) -> None:
        """Turn what is held into what was used, in every counter where it is held."""
        for key in stored.keys:
            cell = self._writable(key)
            for position in range(WIDTH):
                cell[position] += used[position]
                cell[position + WIDTH] -= stored.amount[position]
            if min(cell) < 0:
                self._on_drift(key, stored.id)
                cell[WIDTH:] = [max(0, held) for held in cell[WIDTH:]]

    def _read(self, key: str) -> Sequence[int]:
        return self.decision.counters.get(key) or self._counters.get(key, NOTHING)
