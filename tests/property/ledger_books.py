"""Plain books of what a ledger admitted and charged, kept by the clock: what it must agree with.

They know of buckets only how much a rolling limit may be too strict, and which span a warning is about.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil

from budgets import (
    AT_ONCE,
    ZERO,
    Amount,
    Bound,
    Counter,
    Crossed,
    Expire,
    Expired,
    Held,
    Hold,
    Late,
    Limit,
    LimitBook,
    OnExceed,
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
    Unit,
)

ROLLING = "1m"
ROLLING_US = 60_000_000
BUCKET_US = 2_000_000
EARLIER, LATER = 30, 5
"""Buckets before and after the present one that count for a window of a minute."""


@dataclass(slots=True)
class Entry:
    """What one call has in one counter, at the time from which it counts."""

    key: str
    at_us: int
    used: Amount = ZERO
    held: Amount = ZERO

    def get(self, unit: Unit) -> int:
        return self.used.get(unit) + self.held.get(unit)


@dataclass(slots=True)
class Books:
    """Every admission and charge so far, by what shares a maximum: a key, or all keys of a rolling limit."""

    entries: dict[str, list[Entry]] = field(default_factory=dict[str, list[Entry]])
    open: dict[str, tuple[Hold, list[Entry]]] = field(default_factory=dict[str, tuple[Hold, list[Entry]]])
    leases: dict[str, int] = field(default_factory=dict[str, int])
    charged: Amount = ZERO
    ended: Tally[str] = field(default_factory=Tally[str])
    fired: Tally[tuple[str, Unit, int]] = field(default_factory=Tally[tuple[str, Unit, int]])

    def enter(self, op: Op, result: Result, at_us: int, watched: LimitBook, now_us: int) -> None:
        """Checks an answer by the books, then writes it into them. `at_us` is when the call was bound."""
        match op, result:
            case Hold(), Held():
                entries = self._begin(op.bounds, at_us)
                for entry in entries:
                    entry.held = op.amount
                self.open[op.id], self.leases[op.id] = (op, entries), op.lease_until_us
                self._fits(op.bounds, op.amount, at_us)
            case TopUp(), Held():
                for entry in self.open[op.id][1]:
                    entry.held += op.amount
                self._fits(op.bounds, op.amount, at_us)
            case Take(), Taken():
                crossed = self._charge(self._begin(op.bounds, at_us), op.amount, watched, now_us)
                assert list(result.crossed) == crossed
                self._fits(op.bounds, op.amount, at_us)
            case Settle(), Settled():
                assert list(result.crossed) == self._end(op.id, op.used, watched, now_us)
            case Expire(), Expired():
                self._expire(op, result, watched, now_us)
            case ((Settle() | TopUp()), Late()):
                assert op.id not in self.open
            case ((Hold() | TopUp() | Take()), Refused()):
                self._was_full(op.bounds, result, at_us)
            case Renew(), Renewed():
                assert set(result.missing) == {id_ for id_ in op.ids if id_ not in self.open}
                self.leases |= {
                    id_: max(self.leases[id_], op.lease_until_us) for id_ in op.ids if id_ in self.open
                }
            case _:
                raise AssertionError(f"{type(op).__name__} was answered by {type(result).__name__}")

    def counters(self) -> dict[str, Counter]:
        """What each counter must say."""
        found: dict[str, Counter] = {}
        for entry in (entry for entries in self.entries.values() for entry in entries):
            was = found.get(entry.key, Counter())
            found[entry.key] = Counter(was.used + entry.used, was.held + entry.held)
        return found

    def _begin(self, bounds: Iterable[Bound], at_us: int) -> list[Entry]:
        begun: list[Entry] = []
        for bound in {bound.key: bound for bound in bounds}.values():
            begun.append(Entry(bound.key, at_us))
            self.entries.setdefault(_group(bound.key), []).append(begun[-1])
        return begun

    def _expire(self, op: Expire, result: Expired, watched: LimitBook, now_us: int) -> None:
        due = [id_ for id_ in self.open if self.leases[id_] <= op.now_us]
        assert [expired.id for expired in result.holds] == sorted(due)
        crossed: list[Crossed] = []
        for expired in result.holds:
            assert expired.charged == self.open[expired.id][0].floor
            crossed += self._end(expired.id, expired.charged, watched, now_us)
        assert list(result.crossed) == crossed

    def _end(self, id_: str, used: Amount, watched: LimitBook, now_us: int) -> list[Crossed]:
        self.ended[id_] += 1
        self.charged += used
        _, entries = self.open.pop(id_)
        for entry in entries:
            entry.held = ZERO
        return self._charge(entries, used, watched, now_us)

    def _charge(self, entries: list[Entry], used: Amount, watched: LimitBook, now_us: int) -> list[Crossed]:
        found: list[Crossed] = []
        for entry in entries:
            for limit in watched.limits:
                if (limit.id, limit.window.name) == (_id(entry.key), _window(entry.key)):
                    found += self._crossed(entry, used, limit, now_us)
            entry.used += used
        for crossed in found:
            if _window(crossed.bound_key) != ROLLING:
                self.fired[crossed.bound_key, crossed.unit, crossed.level] += 1
        return found

    def _crossed(self, entry: Entry, used: Amount, limit: Limit, now_us: int) -> Iterator[Crossed]:
        counted = self._shown(entry, now_us)
        if counted is None:
            return
        for unit in (unit for unit in Unit if unit in limit.maximum and unit is not Unit.CONCURRENCY):
            most = limit.maximum[unit]
            levels = {ceil(limit.warn_at * most)} if limit.warn_at else set[int]()
            levels |= {most} if limit.on_exceed is OnExceed.WARN else set()
            before = sum(each.used.get(unit) for each in counted)
            after = before + used.get(unit)
            for level in sorted({level or 1 for level in levels}):
                if before < level <= after:
                    yield Crossed(limit.id, entry.key, unit, level, after, most)

    def _shown(self, entry: Entry, now_us: int) -> list[Entry] | None:
        """What a warning about `entry` adds up; None where its bucket has left the span that ends now."""
        group = self.entries[_group(entry.key)]
        if _window(entry.key) != ROLLING:
            return group
        now = now_us // BUCKET_US
        there = [e for e in group if now - EARLIER <= e.at_us // BUCKET_US <= now + LATER]
        return there if entry in there else None

    def _fits(self, bounds: Iterable[Bound], amount: Amount, at_us: int) -> None:
        """No span that the admitted call is in has more than the maximum of a unit that it asked for."""
        for bound in bounds:
            if not bound.limit.blocks:
                continue
            for unit, most in bound.limit.maximum.items():
                if amount.get(unit):
                    assert self._fullest(bound.key, unit, at_us, ROLLING_US) <= most, (bound.key, unit)

    def _was_full(self, bounds: Iterable[Bound], refused: Refused, at_us: int) -> None:
        """There was no room, but for what a bucket counts too long."""
        [bound] = [bound for bound in bounds if bound.key == refused.bound_key][:1]
        unit, most = refused.unit, refused.maximum
        assert bound.limit.blocks
        assert most == bound.limit.maximum[unit]
        fullest = self._fullest(bound.key, unit, at_us, ROLLING_US + BUCKET_US)
        assert refused.used + refused.held <= fullest
        assert refused.used + refused.held + (refused.asked or 1) > most
        if _window(bound.key) != ROLLING:
            assert refused.used + refused.held == fullest

    def _fullest(self, key: str, unit: Unit, at_us: int, length_us: int) -> int:
        group = self.entries.get(_group(key), [])
        if _window(key) != ROLLING:
            return sum(entry.get(unit) for entry in group)
        ends = {at_us} | {e.at_us for e in group if at_us <= e.at_us < at_us + length_us}
        return max(sum(e.get(unit) for e in group if end - length_us < e.at_us <= end) for end in ends)


def _id(key: str) -> str:
    return key.partition("|")[0]


def _window(key: str) -> str:
    name = key.rpartition("|")[2]
    return name if name == AT_ONCE else name.partition(":")[0]


def _group(key: str) -> str:
    return key.rpartition("|")[0] + "|" + ROLLING if _window(key) == ROLLING else key
