"""What a call may cost at worst: the amount that its budgets hold before it is sent."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from budgets import Amount, Bound, Refused, Unit
from llm_proxy.upstream.prices import FREE, NO_UNITS, Price
from llm_proxy.wire.passthrough import Units

COUNTED = frozenset({Unit.USD, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS})
"""Units for which a prompt has to be counted."""
LEAST_OUTPUT = 16
"""Output tokens under which a call isn't worth making: it's refused instead."""


_MOST_OUTPUT = 2**31 - 1
_MOST_MICRO_USD = 2**53
"""Above every limit that can be set on usd, and far below what overflows a counter."""


class Quote(msgspec.Struct, frozen=True):
    """A call at its worst: `input` tokens in, `choices` replies of at most `cap` tokens each out."""

    input: int
    cap: int
    choices: int
    prices: tuple[Price, ...]
    capped: bool
    """Whether the cap is the caller's own."""
    flat: int = 0
    """Micro-dollars for what is priced by the piece: images, characters, queries."""

    def amount(self) -> Amount:
        output = self.cap * self.choices
        return Amount(
            micro_usd=self._worst(output),
            tokens=self.input + output,
            input_tokens=self.input,
            output_tokens=output,
            requests=1,
        )

    def floor(self) -> Amount:
        """What a call costs of which nothing more is known than that it was sent."""
        return Amount(
            micro_usd=self._worst(0),
            tokens=self.input,
            input_tokens=self.input,
            requests=1,
        )

    def shrunk(self, refused: Refused) -> Quote | None:
        """The same call with a smaller cap, so that it fits what `refused` says is left; None if it can't."""
        if self.capped:
            return None
        left = refused.maximum - refused.used - refused.held
        cap = self._fitting(refused.unit, left)
        if cap is None or cap < LEAST_OUTPUT or cap >= self.cap:
            return None
        return Quote(self.input, cap, self.choices, self.prices, self.capped, self.flat)

    def _worst(self, output: int) -> int:
        dearest = max(price.worst_micro_usd(self.input, output) for price in self.prices)
        return min(dearest + self.flat, _MOST_MICRO_USD)

    def _fitting(self, unit: Unit, left: int) -> int | None:
        match unit:
            case Unit.TOKENS:
                return (left - self.input) // self.choices
            case Unit.OUTPUT_TOKENS:
                return left // self.choices
            case Unit.USD:
                return self._affordable(left)
            case _:
                return None

    def _affordable(self, micro_usd: int) -> int:
        """The largest cap whose worst cost stays within `micro_usd`, by bisection."""
        low, high = 0, self.cap
        while low < high:
            middle = (low + high + 1) // 2
            if self._worst(middle * self.choices) <= micro_usd:
                low = middle
            else:
                high = middle - 1
        return low


def quote(
    input_tokens: int,
    max_output: int | None,
    choices: int,
    prices: Iterable[Price | None],
    units: Units = NO_UNITS,
) -> Quote:
    """The worst case of a call over every target of its route. A missing price counts as free."""
    known = tuple(price or FREE for price in prices) or (FREE,)
    flat = max(price.flat_micro_usd(units) for price in known)
    if max_output is not None:
        return Quote(input_tokens, max_output, choices, known, True, flat)
    cap = min(max(price.max_output for price in known), _MOST_OUTPUT)
    return Quote(input_tokens, cap, choices, known, False, flat)


def counts_tokens(bounds: Iterable[Bound]) -> bool:
    """Whether any of the limits that apply needs the prompt's tokens."""
    return any(not COUNTED.isdisjoint(bound.limit.maximum) for bound in bounds)
