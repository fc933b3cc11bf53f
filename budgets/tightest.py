"""Which of several limits is the tightest: the one a refusal names, and the one rate-limit headers show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from budgets.amounts import FIELDS, POSITION, UNITS, Unit
from budgets.ledger import Counter, Left, Refused
from budgets.limits import Bound

WIDTH = len(FIELDS)
NOTHING: tuple[int, ...] = (0,) * (2 * WIDTH)
Read = Callable[[str], Sequence[int]]
"""A counter by key: what was used in each unit, then what is held in each, in the order of `UNITS`."""

_SHOWN = tuple((unit, POSITION[unit]) for unit in (Unit.REQUESTS, Unit.TOKENS))


class Lack(NamedTuple):
    """A bound without room, in the unit at `position`, for what is asked."""

    bound: Bound
    position: int
    maximum: int
    asked: int


def lacks(bounds: Sequence[Bound], asked: Sequence[int], read: Read, *, at_gate: bool) -> list[Lack]:
    """Every blocking bound that has no room for `asked`, in order; empty where it can be admitted.

    A unit that isn't asked for isn't checked, except that a call which isn't `at_gate` needs some to be left
    of what is taken there: an agent that used up its tool calls is stopped at its next request. A maximum of
    0 of those forbids tool calls, not requests.
    """
    found: list[Lack] = []
    for bound in bounds:
        limit = bound.limit
        if not limit.blocks:
            continue
        cell = read(bound.key)
        for position, maximum in limit.caps:
            ask = asked[position]
            if ask and cell[position] + cell[position + WIDTH] + ask > maximum:
                found.append(Lack(bound, position, maximum, ask))
        if at_gate:
            continue
        for position, maximum in limit.gate_caps:
            if not asked[position] and cell[position] >= maximum:
                found.append(Lack(bound, position, maximum, 0))
    return found


def refusal(lacking: Sequence[Lack], read: Read) -> Refused:
    """The refusal that names the tightest of `lacking`, by the rule that `Refused` states."""
    scale = 1
    for lack in lacking:
        scale *= lack.asked or 1

    def rank(lack: Lack) -> tuple[int, int, int]:
        cell = read(lack.bound.key)
        left = max(0, lack.maximum - cell[lack.position] - cell[lack.position + WIDTH])
        resets_us = lack.bound.resets_us
        # left / asked over the common denominator, so that integers compare exactly
        return left * (scale // (lack.asked or 1)), *_latest_first(resets_us)

    bound, position, maximum, asked = min(lacking, key=rank)
    cell = read(bound.key)
    return Refused(
        limit_id=bound.limit.id,
        bound_key=bound.key,
        unit=UNITS[position],
        maximum=maximum,
        used=cell[position],
        held=cell[position + WIDTH],
        asked=asked,
        resets_us=bound.resets_us,
    )


def left_under(bounds: Sequence[Bound], read: Read) -> tuple[Left, ...]:
    """The least left of requests and of tokens, where a blocking bound limits them; of equal ones, the one
    that resets last."""
    blocking = [(bound, read(bound.key)) for bound in bounds if bound.limit.blocks]
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
            found.append(Left(unit, bound.limit.id, maximum, left, bound.resets_us))
    return tuple(found)


def remaining(bounds: Sequence[Bound], counters: Mapping[str, Counter]) -> tuple[Left, ...]:
    """`left_under` for counters as a store's `peek` gives them; one that isn't there is at nothing."""
    flat = {key: (*counter.used.values(), *counter.held.values()) for key, counter in counters.items()}
    return left_under(bounds, lambda key: flat.get(key, NOTHING))


def _latest_first(resets_us: int | None) -> tuple[int, int]:
    return (0, 0) if resets_us is None else (1, -resets_us)


def _later(bound: Bound, other: Bound) -> bool:
    return _latest_first(bound.resets_us) < _latest_first(other.resets_us)
