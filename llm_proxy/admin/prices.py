"""What operators ask of prices: what each target's model costs, and where that is known from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec
from sqlalchemy import Connection

from llm_proxy.admin.errors import NotFound
from llm_proxy.counting.error import MOST_KEYS, error_key
from llm_proxy.pricing.book import PriceBook
from llm_proxy.pricing.names import KINDS, STANDARD
from llm_proxy.pricing.price import Price
from llm_proxy.pricing.rates import Rates
from llm_proxy.records import error_rows
from routing.targets import AS_ASKED, RouteTable, Target

_PICO_PER_MICRO = 10**6
_PICO_PER_USD = 10**12
_PPM = 1_000_000


class RateLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a million tokens cost, in USD, by LiteLLM's names of the kinds."""

    tier: str
    """`standard`, or LiteLLM's word for another."""
    above: int
    """For prompts of more tokens than this."""
    usd_per_million: dict[str, float]


class TokenError(msgspec.Struct, frozen=True, kw_only=True):
    """How many prompt tokens the upstream reported for each that was counted, over `samples` answers."""

    samples: int
    mean: float
    worst: float


class PriceShown(msgspec.Struct, frozen=True, kw_only=True):
    """The price of one target's model, or of a name that only the table knows (then without a target)."""

    model: str
    """The name under which agents ask for it."""
    target: str
    provider: str
    sent_model: str
    source: str
    """`config`, `litellm-VERSION`, or nothing where no price is known."""
    version: str
    rates: tuple[RateLine, ...]
    usd_per_piece: dict[str, float]
    """For an image, a character, a query, a second of sound or video."""
    max_input_tokens: int | None
    max_output_tokens: int | None
    token_error: TokenError | None


class PriceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One target: its usual rates in USD for a million tokens, None where no price is known."""

    model: str
    target: str
    provider: str
    sent_model: str
    version: str
    input_usd: float | None
    output_usd: float | None
    cached_usd: float | None
    cache_write_usd: float | None
    tiers: tuple[str, ...]
    """Priced apart, beside the standard one."""
    above: tuple[int, ...]
    """Tokens of prompt above which it's dearer."""
    max_input_tokens: int | None
    max_output_tokens: int | None
    token_error: TokenError | None


def price_lines(
    routes: RouteTable, book: PriceBook, connection: Connection | None, limit: int
) -> list[PriceLine]:
    """The config's targets in its order, at most `limit`."""
    errors = _errors(connection)
    every = ((route.name, target) for route in routes.routes() for target in route.targets)
    return [_line(model, target, book, errors) for model, target in islice(every, limit)]


def prices_shown(
    routes: RouteTable, book: PriceBook, connection: Connection | None, model: str, limit: int
) -> list[PriceShown]:
    """The price at each target that answers for `model`, else the table's own of that name.

    Raises `NotFound`, with the nearest names, where nobody knows it.
    """
    errors = _errors(connection)
    resolved = routes.resolve(model)
    if resolved is not None:
        targets = resolved.chain[0].targets[:limit]
        return [_shown(model, t.id, t.provider, t.model, book, errors) for t in targets]
    provider, name = _listed(book, model)
    if book.find(provider, name) is None:
        raise NotFound(f"Nothing is known by the name {model!r}. {_near(routes, book, model)}")
    return [_shown(model, "", provider, name, book, errors)]


def _listed(book: PriceBook, model: str) -> tuple[str, str]:
    """The provider and model that a name of the table means."""
    provider = book.provider_of(model)
    if provider:
        return provider, model.removeprefix(f"{provider}/")
    start, slash, rest = model.partition("/")
    return (start, rest) if slash else ("", model)


def _near(routes: RouteTable, book: PriceBook, model: str) -> str:
    names = list(dict.fromkeys([*(route.name for route in routes.routes()), *book.names()]))
    near = difflib.get_close_matches(model, names, n=5, cutoff=0.5)
    if near:
        return f"Near names: {', '.join(near)}."
    return "Ask for a model of the config, or for a name of LiteLLM's price table, such as gpt-4o-mini."


def _line(model: str, target: Target, book: PriceBook, errors: dict[str, TokenError]) -> PriceLine:
    price = None if target.model == AS_ASKED else book.find(target.provider, target.model)
    rates = price.standard if price is not None else None
    return PriceLine(
        model=model,
        target=target.id,
        provider=target.provider,
        sent_model=target.model,
        version=price.version if price is not None else "",
        input_usd=_million(rates.input) if rates else None,
        output_usd=_million(rates.output) if rates else None,
        cached_usd=_million(rates.cached) if rates else None,
        cache_write_usd=_million(rates.cache_write) if rates else None,
        tiers=tuple(tier for tier in price.tiers if tier != STANDARD) if price is not None else (),
        above=_thresholds(price),
        max_input_tokens=price.window if price is not None else None,
        max_output_tokens=price.max_output if price is not None else None,
        token_error=errors.get(error_key(target.provider, target.model)),
    )


def _shown(
    model: str, target: str, provider: str, sent: str, book: PriceBook, errors: dict[str, TokenError]
) -> PriceShown:
    price = book.find(provider, sent)
    version = price.version if price is not None else ""
    return PriceShown(
        model=model,
        target=target,
        provider=provider,
        sent_model=sent,
        source=version.partition(":")[0],
        version=version,
        rates=tuple(_rates(price)) if price is not None else (),
        usd_per_piece=_pieces(price) if price is not None else {},
        max_input_tokens=price.window if price is not None else None,
        max_output_tokens=price.max_output if price is not None else None,
        token_error=errors.get(error_key(provider, sent)),
    )


def _rates(price: Price) -> Iterator[RateLine]:
    """Each tier from short prompts to long ones, the standard tier first."""
    for tier, bands in price.tiers.items():
        for above, rates in reversed(bands):
            yield RateLine(tier=tier or "standard", above=above, usd_per_million=_kinds(rates))


def _kinds(rates: Rates) -> dict[str, float]:
    return {name: _million(getattr(rates, kind)) for name, kind in KINDS.items()}


def _pieces(price: Price) -> dict[str, float]:
    of = price.pieces
    pico = {"image": of.image, "character": of.character, "query": of.query, "second": of.millisecond * 1_000}
    return {name: value / _PICO_PER_USD for name, value in pico.items() if value}


def _thresholds(price: Price | None) -> tuple[int, ...]:
    bands: Iterable[int] = (band.above for band in price.tiers[STANDARD]) if price is not None else ()
    return tuple(sorted(above for above in bands if above))


def _million(pico: int) -> float:
    """USD for a million tokens, of pico-dollars for one."""
    return pico / _PICO_PER_MICRO


def _errors(connection: Connection | None) -> dict[str, TokenError]:
    rows = {} if connection is None else error_rows.read(connection, MOST_KEYS)
    return {
        key: TokenError(samples=samples, mean=mean / _PPM, worst=worst / _PPM)
        for key, (samples, mean, worst) in rows.items()
    }
