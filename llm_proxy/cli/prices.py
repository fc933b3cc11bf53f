"""`llm-proxy prices`: what models cost, in which tier and for which prompts, and where that is known from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from llm_proxy import wiring
from llm_proxy.admin.prices import PriceLine, PriceShown, RateLine, TokenError, price_lines, prices_shown
from llm_proxy.cli.options import ConfigOption, JsonOption, LimitOption
from llm_proxy.cli.output import Column, console, print_json, print_table
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import count, line

_LINES = (
    Column("model"),
    Column("target", "bold", whole=True),
    Column("sent as"),
    Column("input", "cyan", right=True),
    Column("output", "cyan", right=True),
    Column("cached", right=True),
    Column("written", right=True),
    Column("also"),
    Column("window", right=True),
    Column("reply", right=True),
    Column("counts"),
    Column("version", "dim", whole=True),
)
_WHERE = (Column("tier", "bold"), Column("prompt"))
_KINDS = {
    "input_cost_per_token": Column("input", "cyan", right=True),
    "output_cost_per_token": Column("output", "cyan", right=True),
    "cache_read_input_token_cost": Column("cached", right=True),
    "cache_creation_input_token_cost": Column("written, 5 min", right=True),
    "cache_creation_input_token_cost_above_1hr": Column("1 h", right=True),
    "output_cost_per_reasoning_token": Column("reasoning", right=True),
    "input_cost_per_audio_token": Column("audio in", right=True),
    "output_cost_per_audio_token": Column("audio out", right=True),
    "cache_read_input_audio_token_cost": Column("audio cached", right=True),
    "input_cost_per_image_token": Column("image in", right=True),
    "output_cost_per_image_token": Column("image out", right=True),
    "cache_read_input_image_token_cost": Column("image cached", right=True),
}
_USUAL = {
    "cache_creation_input_token_cost": "input_cost_per_token",
    "cache_creation_input_token_cost_above_1hr": "cache_creation_input_token_cost",
    "output_cost_per_reasoning_token": "output_cost_per_token",
    "input_cost_per_audio_token": "input_cost_per_token",
    "output_cost_per_audio_token": "output_cost_per_token",
    "cache_read_input_audio_token_cost": "cache_read_input_token_cost",
    "input_cost_per_image_token": "input_cost_per_token",
    "output_cost_per_image_token": "output_cost_per_token",
    "cache_read_input_image_token_cost": "cache_read_input_token_cost",
}
"""The kinds that are shown only where they cost something else than these."""


def prices(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="A model of the config, or a name of LiteLLM's price table."),
    ] = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """What the models of all targets cost, in USD for a million tokens; with MODEL, every rate of it.

    From the config's `prices`, else from the price table of the litellm package. The version names the source
    and holds a digest of the rates: every recorded cost has one.
    """
    loaded = load(config)
    book = wiring.prices(loaded)
    routes = wiring.routes(loaded, book)
    with reading(loaded) as connection:
        if model is None:
            lines = price_lines(routes, book, connection, limit)
            shown: list[PriceShown] = []
        else:
            lines, shown = [], prices_shown(routes, book, connection, model, limit)
    if as_json:
        print_json(lines if model is None else shown)
    elif model is None:
        print_table(_LINES, map(_line, lines), "The config has no models.")
    else:
        for price in shown:
            _show(price)


def _line(price: PriceLine) -> Sequence[str | Text]:
    also = [*price.tiers, *(f"over {above:,}" for above in price.above)]
    unpriced = Text("no price", "yellow")
    return [
        price.model,
        price.target,
        f"{price.provider}/{price.sent_model}",
        _usd(price.input_usd) if price.version else unpriced,
        _usd(price.output_usd),
        _usd(price.cached_usd),
        _usd(price.cache_write_usd),
        ", ".join(also),
        _size(price.max_input_tokens),
        _size(price.max_output_tokens),
        _error(price.token_error),
        price.version,
    ]


def _show(price: PriceShown) -> None:
    out = console()
    name = "/".join(filter(None, (price.provider, price.sent_model)))
    heading = Text(line(name), "bold")
    if price.target:
        heading.append(f" at target {line(price.target)}", "not bold")
    if not price.version:
        heading.append(": no price is known; give it one under prices in the config.", "not bold yellow")
        out.print(heading, soft_wrap=True)
        return
    out.print(heading.append(f", {price.version}", "dim not bold"), soft_wrap=True)
    if any(any(rate.usd_per_million.values()) for rate in price.rates) or not price.usd_per_piece:
        kinds = [name for name in _KINDS if _tells(name, price.rates)]
        rows = (
            [*_where(rate), *(_usd(rate.usd_per_million[name]) for name in kinds)] for rate in price.rates
        )
        print_table((*_WHERE, *(_KINDS[name] for name in kinds)), rows, "")
    for piece, usd in price.usd_per_piece.items():
        out.print(f"{_usd(usd)} USD for {_article(piece)}", soft_wrap=True)
    out.print(Text(_sizes(price), "dim"), soft_wrap=True)


def _article(piece: str) -> str:
    return {"image": "an image", "second": "a second of sound or video"}.get(piece, f"a {piece}")


def _sizes(price: PriceShown) -> str:
    words = ["USD for a million tokens"]
    if price.max_input_tokens:
        words.append(f"prompts of up to {count(price.max_input_tokens, 'token')}")
    if price.max_output_tokens:
        words.append(f"replies of up to {count(price.max_output_tokens, 'token')}")
    if price.token_error:
        words.append(f"upstream reports {_error(price.token_error)} tokens for each that is counted")
    return "; ".join(words) + "."


def _tells(name: str, rates: Sequence[RateLine]) -> bool:
    usual = _USUAL.get(name)
    return usual is None or any(rate.usd_per_million[name] != rate.usd_per_million[usual] for rate in rates)


def _where(rate: RateLine) -> list[str]:
    return [rate.tier, f"over {rate.above:,}" if rate.above else "any"]


def _usd(usd: float | None) -> str:
    """As few digits as say it exactly, two at least: 0.15, 1.25, 0.075."""
    if usd is None:
        return ""
    whole, _, part = f"{usd:,.12f}".partition(".")
    return f"{whole}.{part.rstrip('0').ljust(2, '0')}"


def _size(tokens: int | None) -> str:
    return "" if tokens is None else f"{tokens:,}"


def _error(error: TokenError | None) -> str:
    if error is None:
        return ""
    return f"{error.mean:.3f}, at worst {error.worst:.3f} ({count(error.samples, 'answer')})"
