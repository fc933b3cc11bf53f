"""The price of one model: its rates by service tier and by the length of the prompt, and what pieces cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from llm_proxy.chat.events import Usage
from llm_proxy.pricing import tiers
from llm_proxy.pricing.names import STANDARD
from llm_proxy.pricing.rates import Rates
from llm_proxy.wire.passthrough import Units

DEFAULT_MAX_OUTPUT = 4_096
NO_UNITS = Units()
_PICO_PER_MICRO = 10**6


class Band(NamedTuple):
    """`rates` hold for a whole call whose prompt has more tokens than `above`, the cached ones included."""

    above: int
    rates: Rates


Bands = tuple[Band, ...]
"""The longest prompts first; the last holds for all."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pico-dollars (1e-12) for a generated image, a character, a query, a millisecond of sound or video."""

    image: int = 0
    character: int = 0
    query: int = 0
    millisecond: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, and its sizes in tokens."""

    tiers: Mapping[str, Bands]
    """By the tier's word in price tables; the standard one is always there."""
    max_output: int = DEFAULT_MAX_OUTPUT
    """The largest reply that the model gives."""
    window: int | None = None
    """The longest prompt that the model takes; None where that isn't known."""
    pieces: Pieces = Pieces()
    version: str = ""
    """Where it's from, and a digest of what it says: two prices of one version are the same."""
    provider: str = ""
    model: str = ""
    listed: Mapping[str, float] = field(default_factory=dict[str, float], repr=False)
    """USD and sizes, by LiteLLM's names: what it was made of, and can be made of again."""

    @classmethod
    def of(cls, rates: Rates, max_output: int = DEFAULT_MAX_OUTPUT, window: int | None = None) -> Price:
        """One rate for each kind of token, whatever the tier and the prompt."""
        return cls({STANDARD: (Band(0, rates),)}, max_output, window)

    @property
    def standard(self) -> Rates:
        """The usual tier's, for a short prompt."""
        return self.tiers[STANDARD][-1].rates

    def micro_usd(self, usage: Usage, tier: str = STANDARD) -> int:
        """The cost of `usage` in micro-dollars, rounded up once. An unknown tier costs as the standard."""
        found = tiers.known(tier, self.tiers) if tier else STANDARD
        rates = _at(self.tiers[found or STANDARD], usage.input)
        return -(-rates.pico(usage) // _PICO_PER_MICRO)

    def flat_micro_usd(self, units: Units) -> int:
        """What is priced by the piece."""
        of = self.pieces
        pico = (
            units.images * of.image
            + units.characters * of.character
            + units.queries * of.query
            + units.milliseconds * of.millisecond
        )
        return -(-pico // _PICO_PER_MICRO)

    @property
    def dearer_by_the_hour(self) -> bool:
        """Whether it matters for the worst case that a prompt is kept for an hour."""
        every = [band.rates for bands in self.tiers.values() for band in bands]
        return any(rates.dearest_hour > rates.dearest_input for rates in every)

    def dearest(self, input_tokens: int, asked: str = STANDARD, *, hour: bool = True) -> Dearest:
        """The most that tokens can cost, of whatever kind, where the prompt has `input_tokens` or fewer.

        `asked` is the tier in the request's own word: the call may be served in any tier that it leads to.
        `hour`: some of the prompt may be written to the cache for an hour.
        """
        names = (STANDARD,) if asked == STANDARD else tiers.reachable(asked, self.tiers)
        rates = [
            band.rates
            for name in names
            for band in self.tiers[name]
            if band.above < input_tokens or not band.above
        ]
        return Dearest(
            max([r.dearest_hour if hour else r.dearest_input for r in rates]),
            max([r.dearest_output for r in rates]),
        )


class Dearest(NamedTuple):
    """Pico-dollars a token."""

    input: int
    output: int

    def micro_usd(self, input_tokens: int, output_tokens: int) -> int:
        """Rounded up."""
        return -(-(input_tokens * self.input + output_tokens * self.output) // _PICO_PER_MICRO)


def _at(bands: Bands, input_tokens: int) -> Rates:
    for band in bands:
        if input_tokens > band.above:
            return band.rates
    return bands[-1].rates


FREE = Price.of(Rates())
