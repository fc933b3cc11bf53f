"""From a row of LiteLLM's table, or of the config, to a price."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, cast

import msgspec

from llm_proxy.pricing.names import BATCH, FAST, KINDS, PIECES, SIZES, STANDARD, RateName, is_rate, token_rate
from llm_proxy.pricing.price import DEFAULT_MAX_OUTPUT, Band, Bands, Pieces, Price
from llm_proxy.pricing.rates import Rates

Listed = Mapping[str, float]
"""USD and sizes by LiteLLM's names."""

_PICO = Decimal(10) ** 12
_AT_THRESHOLD = frozenset({"xai"})
"""Providers whose dearer rates begin at the threshold itself, not above it."""
_INPUT, _OUTPUT = "input_cost_per_token", "output_cost_per_token"
_STEP_DEFAULTS = (
    ("cache_read_input_token_cost", _INPUT),
    ("cache_creation_input_token_cost", _INPUT),
    ("output_cost_per_reasoning_token", _OUTPUT),
)

_encode = msgspec.json.Encoder(order="sorted").encode


def listed(row: Mapping[str, Any]) -> Listed:
    """What is understood of a row: its rates and sizes, in LiteLLM's names. Pure; never raises."""
    plain = {name: value for name, value in row.items() if _counts(name, value)}
    return plain | dict(_stepped(row.get("tiered_pricing"))) | dict(_fast(plain, row))


def price_of(rates: Listed, provider: str = "", model: str = "", source: str = "") -> Price | None:
    """The price that `rates` make, None where they price nothing. `source` begins its version."""
    if not prices_something(rates):
        return None
    found: dict[RateName, int] = {}
    for name, dollars in rates.items():
        if (rate := token_rate(name)) is not None:
            found[rate] = _pico(dollars)
    tiers = {STANDARD: _bands(found, STANDARD, provider)}
    for tier in sorted({rate.tier for rate in found} - {STANDARD}):
        tiers[tier] = _bands(found, tier, provider)
    return Price(
        tiers,
        max_output=_largest((rates.get("max_output_tokens"), rates.get("max_tokens")), DEFAULT_MAX_OUTPUT),
        window=_largest((rates.get("max_input_tokens"),), 0) or None,
        pieces=_pieces(rates),
        version=version(rates, provider, model, source),
        provider=provider,
        model=model,
        listed=rates,
    )


def prices_something(names: Iterable[str]) -> bool:
    """Whether any of `names` is something's usual rate: those of long prompts, tiers or caches won't do."""
    return any(name in PIECES or (name in KINDS and "_cost_per_" in name) for name in names)


def version(rates: Listed, provider: str, model: str, source: str) -> str:
    """`source`, and a digest of what is priced and how: `litellm-1.93.0:1a2b3c4d5e6f`."""
    said = _encode([provider, model, _numbers(rates)])
    return f"{source}:{hashlib.blake2b(said, digest_size=6).hexdigest()}"


def written(rates: Listed) -> str:
    """`rates` as JSON, in one order: what the store keeps of a price."""
    return _encode(_numbers(rates)).decode()


def _numbers(rates: Listed) -> dict[str, float]:
    """Every number as a float, so that 1 and 1.0 are one price."""
    return {name: float(value) for name, value in rates.items()}


def _counts(name: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value >= 0 and is_rate(name) if name not in SIZES else value > 0


def _stepped(steps: object) -> Iterator[tuple[str, float]]:
    """`tiered_pricing`: rates by the prompt's length, each step whole in itself, as names say elsewhere."""
    for step in cast("list[object]", steps) if isinstance(steps, list) else ():
        if not isinstance(step, dict):
            continue
        rates = cast("dict[str, Any]", step)
        span = rates.get("range")
        start = cast("list[object]", span)[0] if isinstance(span, list) and span else None
        if not isinstance(start, int | float) or _INPUT not in rates:
            continue
        for name, otherwise in _STEP_DEFAULTS:
            if name not in rates and otherwise in rates:
                rates = rates | {name: rates[otherwise]}
        above = f"_above_{int(start)}_tokens" if start > 0 else ""
        yield from ((f"{name}{above}", rates[name]) for name in KINDS if _counts(name, rates.get(name)))


def _fast(plain: Listed, row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Anthropic's fast mode: a factor on every rate of the standard tier."""
    entry = row.get("provider_specific_entry")
    factor = cast("dict[str, object]", entry).get("fast") if isinstance(entry, dict) else None
    if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 0:
        return
    for name, dollars in plain.items():
        rate = token_rate(name)
        if rate is not None and rate.tier == STANDARD:
            yield f"{name}_{FAST}", float(Decimal(repr(dollars)) * Decimal(repr(factor)))


def _bands(found: Mapping[RateName, int], tier: str, provider: str) -> Bands:
    starts = {rate.above for rate in found if rate.tier in (tier, STANDARD)} | {0}
    inclusive = provider in _AT_THRESHOLD
    return tuple(
        Band(max(0, above - inclusive), _rates(found, above, tier)) for above in sorted(starts, reverse=True)
    )


def _rates(found: Mapping[RateName, int], above: int, tier: str) -> Rates:
    """A kind without a rate of its own has that of the kind which it's part of."""

    def own(kind: str, otherwise: int) -> int:
        places = _places(found, above, tier)
        return next((found[at] for place in places if (at := RateName(kind, *place)) in found), otherwise)

    input_ = own(_INPUT, own("input_cost_per_image_token", own("input_cost_per_audio_token", 0)))
    output = own(_OUTPUT, own("output_cost_per_image_token", own("output_cost_per_audio_token", 0)))
    cached = own("cache_read_input_token_cost", input_)
    write = own("cache_creation_input_token_cost", input_)
    return Rates(
        input=input_,
        output=output,
        cached=cached,
        cache_write=write,
        # What is kept longer is never cheaper: some rows name no rate for it above a threshold.
        cache_write_hour=max(write, own("cache_creation_input_token_cost_above_1hr", write)),
        reasoning=_reasoning(found, above, tier, output),
        audio_input=own("input_cost_per_audio_token", input_),
        audio_output=own("output_cost_per_audio_token", output),
        image_input=own("input_cost_per_image_token", input_),
        image_output=own("output_cost_per_image_token", output),
        cached_audio=own("cache_read_input_audio_token_cost", cached),
        cached_image=own("cache_read_input_image_token_cost", cached),
    )


def _places(found: Mapping[RateName, int], above: int, tier: str) -> Iterator[tuple[int, str]]:
    """Where to look for a rate: at this threshold and tier, then nearer and nearer to the plain one.

    As LiteLLM does it: a tier without its own rate for long prompts takes the standard one, a batch
    its own for short ones.
    """
    lower = sorted({rate.above for rate in found if rate.above < above}, reverse=True)
    tiers = (tier, STANDARD) if tier != STANDARD else (STANDARD,)
    if tier == BATCH:
        yield from ((at, one) for one in tiers for at in (above, *lower))
    else:
        yield from ((at, one) for at in (above, *lower) for one in tiers)


def _reasoning(found: Mapping[RateName, int], above: int, tier: str, output: int) -> int:
    """Thought is priced as other output, unless a rate for it stands at least as near as that of output."""
    for place in _places(found, above, tier):
        own = found.get(RateName("output_cost_per_reasoning_token", *place))
        if own is not None:
            return own
        if RateName(_OUTPUT, *place) in found:
            return output
    return output


def _pieces(rates: Listed) -> Pieces:
    first: dict[str, int] = {}
    for name, piece in PIECES.items():
        first[piece] = first.get(piece) or _pico(rates.get(name, 0))
    return Pieces(first["image"], first["character"], first["query"], first["second"] // 1_000)


def _pico(dollars: float) -> int:
    return int((Decimal(repr(dollars)) * _PICO).to_integral_value())


def _largest(values: Iterable[float | None], otherwise: int) -> int:
    return next((int(v) for v in values if v is not None and v > 0), otherwise)
