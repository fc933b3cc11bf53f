"""Which of several limits is the tightest: the one a refusal names, and the one rate-limit headers show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from budgets.amounts import FIELDS, POSITION, UNITS, Amount, Unit
from budgets.ledger import Counter, Left, Refused
from budgets.limits import Bound
from budgets.spans import Buckets

WIDTH = len(FIELDS)
NOTHING: tuple[int, ...] = (0,) * (2 * WIDTH)
Cell = Sequence[int]
"""A counter: what was used in each unit, then what is held in each, in the order of `UNITS`."""
Read = Callable[[str], Cell]
"""A counter by key."""

_SHOWN = tuple((unit, POSITION[unit]) for unit in (Unit.REQUESTS, Unit.TOKENS))


class Lack(NamedTuple):
    """A bound without room, in the unit at `position`, for what is asked."""

    bound: Bound
    position: int
    maximum: int
    asked: int
    used: int
    held: int
    resets_us: int | None

    @property
    def busy(self) -> bool:
        return self.held > 0 and self.used + self.asked <= self.maximum


def lacks(
    bounds: Sequence[Bound], asked: Sequence[int], read: Read, now_us: int, *, begins: bool
) -> list[Lack]:
    """Every blocking bound that has no room for `asked`, in order; empty where it can be admitted.

    A unit that isn't asked for isn't checked, except that a call which `begins` needs some to be left of
    what is taken at the gate: an agent that used up its tool calls is stopped at its next request. A maximum
    of 0 of those forbids tool calls, not requests.
    """
    found: list[Lack] = []
    for bound in bounds:
        limit = bound.limit
        if not limit.blocks:
            continue
        cell = _cell(bound, read, now_us)
        for position, maximum in limit.caps:
            ask = asked[position]
            if ask and cell[position] + cell[position + WIDTH] + ask > maximum:
                found.append(_lack(bound, position, maximum, ask, cell, read, now_us))
        if not begins:
            continue
        for position, maximum in limit.gate_caps:
            if not asked[position] and cell[position] >= maximum:
                found.append(_lack(bound, position, maximum, 0, cell, read, now_us))
    return found


def refusal(lacking: Sequence[Lack], left: tuple[Left, ...] = ()) -> Refused:
    """The refusal that names the tightest of `lacking`, by the rule that `Refused` states."""
    scale = 1
    for lack in lacking:
        scale *= lack.asked or 1

    def rank(lack: Lack) -> tuple[int, bool, tuple[int, int]]:
        left = max(0, lack.maximum - lack.used - lack.held)
        # left / asked over the common denominator, so that integers compare exactly
        return left * (scale // (lack.asked or 1)), lack.busy, _latest_first(lack.resets_us)

    lack = min(lacking, key=rank)
    return Refused(
        limit_id=lack.bound.limit.id,
        bound_key=lack.bound.key,
        unit=UNITS[lack.position],
        maximum=lack.maximum,
        used=lack.used,
        held=lack.held,
        asked=lack.asked,
        resets_us=lack.resets_us,
        left=left,
    )


def left_under(bounds: Sequence[Bound], read: Read, now_us: int) -> tuple[Left, ...]:
    """The least left of requests and of tokens, where a blocking bound limits them; of equal ones, the one
    that resets last."""
    blocking = [
        (bound, _cell(bound, read, now_us))
        for bound in bounds
        if bound.limit.blocks and any(bound.limit.at[position] is not None for _, position in _SHOWN)
    ]
    found: list[Left] = []
    for unit, position in _SHOWN:
        least: tuple[int, int, Bound] | None = None
        for bound, cell in blocking:
            maximum = bound.limit.at[position]
            if maximum is None:
                continue
            left = max(0, maximum - cell[position] - cell[position + WIDTH])
            if least is None or left < least[0] or (left == least[0] and _later(bound, least[2])):
                least = (left, maximum, bound)
        if least is not None:
            left, maximum, bound = least
            found.append(Left(unit, bound.limit.id, maximum, left, _first_leaves(bound, position, read)))
    return tuple(found)


def remaining(bounds: Sequence[Bound], counters: Mapping[str, Counter]) -> tuple[Left, ...]:
    """`left_under` for counters as a store's `peek` gives them for the `keys` of `bounds`; one that isn't
    there is at nothing."""
    flat = {key: (*counter.used.values(), *counter.held.values()) for key, counter in counters.items()}
    return left_under(bounds, lambda key: flat.get(key, NOTHING), 0)


def counted(bound: Bound, counters: Mapping[str, Counter]) -> Counter:
    """What is used and held under `bound`, by counters as a store's `peek` gives them for its `keys`."""
    found = [counter for key in bound.keys if (counter := counters.get(key)) is not None]
    return Counter(
        sum((counter.used for counter in found), Amount()), sum((counter.held for counter in found), Amount())
    )


def _lack(bound: Bound, position: int, maximum: int, asked: int, cell: Cell, read: Read, now_us: int) -> Lack:
    resets_us = bound.resets_us
    if bound.buckets is not None:
        resets_us = _eases(bound.buckets, bound.key, position, maximum - (asked or 1), read, now_us)
    return Lack(bound, position, maximum, asked, cell[position], cell[position + WIDTH], resets_us)


def _cell(bound: Bound, read: Read, now_us: int) -> Cell:
    """What counts under `bound`: one counter, or the fullest span of a rolling window."""
    return read(bound.key) if bound.buckets is None else _fullest(bound.buckets, bound.key, read, now_us)


def _fullest(buckets: Buckets, key: str, read: Read, now_us: int) -> Cell:
    """Of all the spans that the bucket `key` is in, the fullest, unit by unit."""
    later = list(map(read, buckets.later_by(now_us)))
    while later and not any(later[-1]):
        later.pop()
    span = [*map(read, buckets.earlier), read(key)]
    totals = _sums([cell for cell in span if cell is not NOTHING])
    best = totals[:]
    for gone, come in zip(span, later, strict=False):
        totals = [total - old + new for total, old, new in zip(totals, gone, come, strict=True)]
        for used in range(WIDTH):
            held = used + WIDTH
            if totals[used] + totals[held] > best[used] + best[held]:
                best[used], best[held] = totals[used], totals[held]
    return best


def _sums(cells: Sequence[Cell]) -> list[int]:
    return [sum(column) for column in zip(*cells, strict=True)] if cells else list(NOTHING)


def _eases(buckets: Buckets, key: str, position: int, most: int, read: Read, now_us: int) -> int:
    """When enough of the oldest buckets have left that what the rest counts is at most `most`.

    Where even nothing is more than that, it is when the last bucket leaves that counts anything.
    """
    first = -len(buckets.earlier)
    cells = map(read, (*buckets.earlier, key, *buckets.later_by(now_us)))
    figures = [cell[position] + cell[position + WIDTH] for cell in cells]
    total, last = sum(figures), 0
    for step, figure in enumerate(figures, first):
        if figure:
            total, last = total - figure, step
            if total <= most:
                break
    return buckets.leaves_us(last)


def _first_leaves(bound: Bound, position: int, read: Read) -> int | None:
    """When the oldest bucket that counts anything leaves; of other windows, when the span ends."""
    buckets = bound.buckets
    if buckets is None:
        return bound.resets_us
    for step, key in enumerate(buckets.earlier, -len(buckets.earlier)):
        cell = read(key)
        if cell[position] or cell[position + WIDTH]:
            return buckets.leaves_us(step)
    return bound.resets_us


def _latest_first(resets_us: int | None) -> tuple[int, int]:
    return (0, 0) if resets_us is None else (1, -resets_us)


def _later(bound: Bound, other: Bound) -> bool:
    return _latest_first(bound.resets_us) < _latest_first(other.resets_us)
