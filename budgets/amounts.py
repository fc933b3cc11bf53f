"""What budgets count: units, and amounts of them. Integers only; money is micro-dollars."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

MICRO = 1_000_000
LARGEST = 2**62
"""The largest maximum that a limit may have, so that its counters stay within a BIGINT."""


class Unit(StrEnum):
    """What a limit may count. The order is that of `Amount`'s fields and of the stored columns."""

    USD = "usd"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    REQUESTS = "requests"
    TOOL_CALLS = "tool_calls"
    WRITES = "writes"
    CONCURRENCY = "concurrency"
    """Calls at once: held while a call runs, and never used up."""

    @property
    def field(self) -> str:
        """The name of this unit's field in `Amount`, and of its columns."""
        return "micro_usd" if self is Unit.USD else self.value


UNITS: tuple[Unit, ...] = tuple(Unit)
FIELDS: tuple[str, ...] = tuple(unit.field for unit in UNITS)
POSITION: dict[Unit, int] = {unit: position for position, unit in enumerate(UNITS)}
AT_GATE: frozenset[Unit] = frozenset({Unit.TOOL_CALLS, Unit.WRITES})
"""Units that nobody knows before the model has answered: taken one by one, never held."""

_values: Callable[[Amount], tuple[int, ...]] = attrgetter(*FIELDS)


class Amount(msgspec.Struct, frozen=True, gc=False):
    """How much of each unit. A difference may be negative; what is held, used or taken may not."""

    micro_usd: int = 0
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    tool_calls: int = 0
    writes: int = 0
    concurrency: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))

    def __sub__(self, other: Amount) -> Amount:
        return Amount(*(a - b for a, b in zip(_values(self), _values(other), strict=True)))

    def max(self, other: Amount) -> Amount:
        """The larger of the two, unit by unit."""
        return Amount(*map(max, _values(self), _values(other)))

    @property
    def is_zero(self) -> bool:
        return not any(_values(self))

    def get(self, unit: Unit) -> int:
        return _values(self)[POSITION[unit]]

    def values(self) -> tuple[int, ...]:
        """Every unit's figure, in the order of `UNITS`."""
        return _values(self)


ZERO = Amount()


def micro_usd(dollars: float | str | Decimal) -> int:
    """`dollars`, as a person writes them, in micro-dollars; exact.

    A float stands for the shortest decimal that reads back as it (0.1 is ten cents). Raises ValueError for
    what isn't a finite number of at least 0, and for more than six decimals: rounding a limit either way
    would enforce another limit than the one written.
    """
    try:
        amount = Decimal(str(dollars)) if not isinstance(dollars, Decimal) else dollars
    except InvalidOperation:
        raise ValueError(f"{dollars!r} is not an amount of dollars: write one such as 5 or 0.25") from None
    if isinstance(dollars, bool) or not amount.is_finite() or amount < 0:
        raise ValueError(f"{dollars!r} is not an amount of dollars: it must be a number of 0 or more")
    if amount > LARGEST // MICRO:
        raise ValueError(f"{dollars!r} dollars is more than can be counted: the most is {LARGEST // MICRO}")
    _, digits, exponent = amount.normalize().as_tuple()
    if isinstance(exponent, int) and exponent < -6:
        raise ValueError(f"{dollars!r} dollars has more than six decimals: the smallest step is 0.000001")
    return int("".join(map(str, digits))) * 10 ** (int(exponent) + 6)
