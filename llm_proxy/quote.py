"""What a call may cost at worst: the amount that its budgets hold before it is sent."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import structs

from budgets import Amount, Bound, Refused, Unit
from llm_proxy.pricing.price import FREE, NO_UNITS, Dearest, Price
from llm_proxy.wire.passthrough import Units

COUNTED = frozenset({Unit.USD, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS})
"""Units for which a prompt has to be counted."""
LEAST_OUTPUT = 16
"""Output tokens under which a call isn't worth making: it's refused instead."""


_MOST_OUTPUT = 2**31 - 1
_MOST_MICRO_USD = 2**53
"""Above every limit that can be set on usd, and far below what overflows a counter."""


class Tries(msgspec.Struct, frozen=True):
    """How much a call may use beyond one try: the prompts it may pay for, and the whole replies.

    Two targets at once give two of both. One that goes on with another's cut reply reads the prompt again
    and what came of the reply, and both parts together are one reply.
    """

    prompts: int = 1
    replies: int = 1

    @property
    def again(self) -> int:
        """How often a cut reply may be read by one that goes on with it."""
        return self.prompts - self.replies


ONE = Tries()


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
    tries: Tries = ONE
    dearest: tuple[Dearest, ...] = ()
    """The most that a token may cost at each of `prices`, in any tier that the call may be served in."""
    start: int = 0
    """Output tokens of each reply that are held, where that is less than the cap: more is as it comes."""

    @property
    def reply(self) -> int:
        """Output tokens of each reply that are held."""
        return self.start or self.cap

    @property
    def output(self) -> int:
        """Output tokens that are held."""
        return self.reply * self.choices * self.tries.replies

    def amount(self) -> Amount:
        read = self.tries.again * self.reply * self.choices
        input_, output = self.input * self.tries.prompts + read, self.output
        return Amount(
            micro_usd=self._worst(self.reply),
            tokens=input_ + output,
            input_tokens=input_,
            output_tokens=output,
            requests=1,
            concurrency=1,
        )

    def floor(self) -> Amount:
        """What a call costs of which nothing more is known than that it was sent."""
        return Amount(
            micro_usd=min(self._one(self.input, 0), _MOST_MICRO_USD),
            tokens=self.input,
            input_tokens=self.input,
            requests=1,
        )

    def shrunk(self, refused: Refused) -> Quote | None:
        """The same call made to fit what `refused` says is left; None if it can't be.

        It does without a second try before its cap gets smaller.
        """
        left = refused.maximum - refused.used - refused.held
        if self.tries != ONE and refused.unit in COUNTED:
            alone = structs.replace(self, tries=ONE)
            return alone if alone.amount().get(refused.unit) <= left else alone.shrunk(refused)
        if self.capped:
            return None
        cap = self._fitting(refused.unit, left)
        if cap is None or cap < LEAST_OUTPUT or cap >= self.reply:
            return None
        return structs.replace(self, cap=cap, start=0)

    def holding(self, tokens: int) -> Quote:
        """The same call with so many tokens of each reply held, at most its worst case."""
        return structs.replace(self, start=tokens if tokens < self.cap else 0)

    def stretched(self, refused: Refused) -> Quote:
        """The same call holding as much more as `refused` says is left."""
        held = self.amount().get(refused.unit)
        reply = self._fitting(refused.unit, refused.maximum - refused.used - refused.held + held)
        return self if reply is None or reply <= self.reply else self.holding(reply)

    def _worst(self, cap: int) -> int:
        output = cap * self.choices
        worst = self.tries.replies * self._one(self.input, output)
        if self.tries.again:
            worst += self.tries.again * self._one(self.input + output, 0)
        return min(worst, _MOST_MICRO_USD)

    def _one(self, input_: int, output: int) -> int:
        """One try, at the dearest target."""
        return max([most.micro_usd(input_, output) for most in self.dearest]) + self.flat

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
            if self._worst(middle) <= micro_usd:
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
    tries: Tries = ONE,
    tier: str = "",
    *,
    hour: bool = True,
) -> Quote:
    """The worst case of a call over every target of its route. A missing price counts as free.

    `tier` is the service tier that the request asks for, in its own word; `hour`, whether it may have its
    prompt kept in the cache for an hour.
    """
    known = tuple([price or FREE for price in prices]) or (FREE,)
    flat = max([price.flat_micro_usd(units) for price in known])
    capped = max_output is not None
    cap = max_output if capped else min(max([price.max_output for price in known]), _MOST_OUTPUT)
    longest = input_tokens + (cap * choices if tries.again else 0)
    dearest = tuple([price.dearest(longest, tier, hour=hour) for price in known])
    return Quote(input_tokens, cap, choices, known, capped, flat, tries, dearest)


def counts_tokens(bounds: Iterable[Bound]) -> bool:
    """Whether any of the limits that apply needs the prompt's tokens."""
    return any(not COUNTED.isdisjoint(bound.limit.maximum) for bound in bounds)
