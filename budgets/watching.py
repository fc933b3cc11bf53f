"""Which levels of which limits somebody wants to hear of, found by a counter's key."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple

from budgets.amounts import POSITION, UNITS, Unit
from budgets.ledger import Crossed
from budgets.limits import Limit, LimitBook, OnExceed
from budgets.rolling import Rolling
from budgets.scopes import quoted

_MOST_KNOWN = 10_000


class Level(NamedTuple):
    """Reached where what was used of the unit at `position` comes from below `at` to it or past it."""

    limit_id: str
    position: int
    at: int
    maximum: int

    def crossed(self, key: str, used: int) -> Crossed:
        return Crossed(self.limit_id, key, UNITS[self.position], self.at, used, self.maximum)


class Watch:
    """The levels of a book's limits: that of `warn_at`, and the maximum of those that only warn.

    A limit is found by its id, which a key begins with, and by its window, which the key's last part names:
    the configuration may have changed since the counter was begun, and its levels count as they are now.
    """

    __slots__ = ("_levels", "_rolling", "_spans")

    def __init__(self, book: LimitBook) -> None:
        watched = {
            (quoted(limit.id), limit.window.name): (limit, levels)
            for limit in book.limits
            if (levels := _levels(limit))
        }
        self._levels = {name: levels for name, (_, levels) in watched.items()}
        windows = [limit.window for limit, _ in watched.values()]
        self._rolling = {window.name: window for window in windows if isinstance(window, Rolling)}
        self._spans: dict[str, _Span] = {}

    def __bool__(self) -> bool:
        return bool(self._levels)

    @property
    def rolls(self) -> bool:
        """Whether any of the limits counts over several counters at once."""
        return bool(self._rolling)

    def levels(self, key: str) -> tuple[Level, ...]:
        """Of the limit that `key` counts for; none where nobody watches it."""
        window = key[key.rfind("|") + 1 :].partition(":")[0]
        return self._levels.get((key.partition("|")[0], window), ())

    def summed(self, key: str, now_us: int) -> tuple[str, ...]:
        """The counters whose sum may reach a level of `key`: under a rolling window those of the span that
        ends at `now_us`, and none where `key` is in that no more."""
        if not self._rolling:
            return (key,)
        name = key[key.rfind("|") + 1 :]
        window = self._rolling.get(name.partition(":")[0])
        if window is None or not self.levels(key):
            return (key,)
        head = key.removesuffix(name)
        names, known = self._span(window, now_us)
        keys = known.get(head)
        if keys is None:
            keys = tuple([head + each for each in names])
            if len(known) < _MOST_KNOWN:
                known[head] = keys
        return keys if key in keys else ()

    def _span(self, window: Rolling, now_us: int) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
        """The names of the buckets that count at `now_us`, and the keys already made of them."""
        kept = self._spans.get(window.name)
        if kept is None or not kept.start_us <= now_us < kept.end_us:
            span = window.span(now_us, None)
            assert span.resets_us is not None
            assert span.buckets is not None
            names = (*span.buckets.earlier, span.key, *span.buckets.later)
            kept = self._spans[window.name] = _Span(span.buckets.start_us, span.resets_us, names, {})
        return kept.names, kept.known


class _Span(NamedTuple):
    start_us: int
    end_us: int
    names: tuple[str, ...]
    known: dict[str, tuple[str, ...]]
    """The keys of `names` by what comes before them."""


def _levels(limit: Limit) -> tuple[Level, ...]:
    """In order. Concurrency is never used up, so that it reaches none."""
    found: list[Level] = []
    for unit in Unit:
        maximum = limit.maximum.get(unit)
        if maximum is None or unit is Unit.CONCURRENCY:
            continue
        at: set[int] = set()
        if limit.warn_at is not None:
            # By the decimal that was written: 0.07 of 100 is 7, and not a little more.
            share = Decimal(str(limit.warn_at)) * maximum
            at.add(int(share.to_integral_value(ROUND_CEILING)))
        if limit.on_exceed is OnExceed.WARN:
            at.add(maximum)
        levels = sorted({max(1, level) for level in at})
        found += [Level(limit.id, POSITION[unit], level, maximum) for level in levels]
    return tuple(found)
