"""What a model costs: the litellm package's price table, read as a file, and the config's overrides.

Amounts are integers: a rate is kept in pico-dollars per token, so that LiteLLM's
`input_cost_per_token: 1.5e-07` stays exact; a cost is rounded up to the micro-dollar once, at its end.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import msgspec

from llm_proxy.chat.events import Usage
from llm_proxy.wire.passthrough import Units

DEFAULT_MAX_OUTPUT = 4_096
NO_UNITS = Units()
_REMEMBERED = 10_000
"""Callers choose the model's name where a target is `*`, so what is remembered has to end somewhere."""
_PICO = Decimal(10) ** 12
_PICO_PER_MICRO = 10**6
TABLE = "model_prices_and_context_window_backup.json"


class PriceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table, in LiteLLM's field names; dollars per token."""

    input_cost_per_token: float | None = None
    output_cost_per_token: float | None = None
    cache_read_input_token_cost: float | None = None
    cache_creation_input_token_cost: float | None = None
    output_cost_per_reasoning_token: float | None = None
    input_cost_per_image: float | None = None
    output_cost_per_image: float | None = None
    input_cost_per_character: float | None = None
    input_cost_per_query: float | None = None
    input_cost_per_second: float | None = None
    output_cost_per_second: float | None = None
    max_input_tokens: int | float | str | None = None
    max_output_tokens: int | float | str | None = None
    max_tokens: int | float | str | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """Rates in pico-dollars (1e-12) per token, and the largest reply the model gives, in tokens."""

    input: int
    output: int
    cached: int
    cache_write: int
    reasoning: int
    max_output: int
    window: int | None = None
    """The longest prompt that the model takes, in tokens; None where that isn't known."""
    image: int = 0
    """Pico-dollars for a generated image; below for a character, a query, a millisecond of sound."""
    character: int = 0
    query: int = 0
    millisecond: int = 0

    def flat_micro_usd(self, units: Units) -> int:
        """What is priced by the piece."""
        pico = (
            units.images * self.image
            + units.characters * self.character
            + units.queries * self.query
            + units.milliseconds * self.millisecond
        )
        return -(-pico // _PICO_PER_MICRO)

    def micro_usd(self, usage: Usage) -> int:
        """The cost of `usage` in micro-dollars, rounded up once."""
        plain = max(usage.input - usage.cached - usage.cache_write, 0)
        said = max(usage.output - usage.reasoning, 0)
        pico = (
            plain * self.input
            + usage.cached * self.cached
            + usage.cache_write * self.cache_write
            + said * self.output
            + usage.reasoning * self.reasoning
        )
        return -(-pico // _PICO_PER_MICRO)

    def worst_micro_usd(self, input_tokens: int, output_tokens: int) -> int:
        """The most that so many tokens can cost, whatever their kind."""
        dearest_in = max(self.input, self.cached, self.cache_write)
        dearest_out = max(self.output, self.reasoning)
        return -(-(input_tokens * dearest_in + output_tokens * dearest_out) // _PICO_PER_MICRO)


FREE = Price(input=0, output=0, cached=0, cache_write=0, reasoning=0, max_output=DEFAULT_MAX_OUTPUT)


class PriceBook:
    """Prices by (provider, model), looked up once at load for the models that the config names."""

    def __init__(self, overrides: Mapping[str, Mapping[str, object]], table: Path | None = None) -> None:
        self._overrides = {
            name: msgspec.convert(dict(row), PriceRow, strict=False) for name, row in overrides.items()
        }
        self._path = table or table_path()
        self._rows: dict[str, msgspec.Raw] | None = None
        self._known: dict[tuple[str, str], Price | None] = {}

    def load(self, names: Iterable[tuple[str, str]]) -> None:
        """Looks up every (provider, model); keeps the table, which is large, only for targets `*`."""
        wild = False
        for provider, model in names:
            self.find(provider, model)
            wild = wild or model == "*"
        if not wild:
            self._rows = None

    def find(self, provider: str, model: str) -> Price | None:
        """The price of `model`, or None where neither the config nor the table has one."""
        key = (provider, model)
        if key in self._known:
            return self._known[key]
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        price = self._known[key] = self._look_up(provider, model)
        return price

    def _look_up(self, provider: str, model: str) -> Price | None:
        for name in (f"{provider}/{model}", model):
            if name in self._overrides:
                return _price(self._overrides[name])
        if provider == "scripted":
            return None
        rows = self._table()
        for name in (f"{provider}/{model}", model):
            if name in rows:
                return _price(msgspec.json.decode(rows[name], type=PriceRow))
        return None

    def _table(self) -> dict[str, msgspec.Raw]:
        if self._rows is None:
            self._rows = msgspec.json.decode(self._path.read_bytes(), type=dict[str, msgspec.Raw])
        return self._rows


def table_path() -> Path:
    """The litellm package's price table, found without importing the package (which takes seconds)."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the litellm package is not installed, and its price table is needed")
    return Path(spec.origin).parent / TABLE


def _price(row: PriceRow) -> Price | None:
    image = row.output_cost_per_image if row.output_cost_per_image is not None else row.input_cost_per_image
    second = row.output_cost_per_second or row.input_cost_per_second
    known = (
        row.input_cost_per_token,
        row.output_cost_per_token,
        image,
        row.input_cost_per_character,
        row.input_cost_per_query,
        second,
    )
    if all(rate is None for rate in known):
        return None
    plain, output = _pico(row.input_cost_per_token), _pico(row.output_cost_per_token)
    return Price(
        input=plain,
        output=output,
        cached=_pico(row.cache_read_input_token_cost, plain),
        cache_write=_pico(row.cache_creation_input_token_cost, plain),
        reasoning=_pico(row.output_cost_per_reasoning_token, output),
        max_output=_largest((row.max_output_tokens, row.max_tokens), DEFAULT_MAX_OUTPUT),
        window=_largest((row.max_input_tokens,), 0) or None,
        image=_pico(image),
        character=_pico(row.input_cost_per_character),
        query=_pico(row.input_cost_per_query),
        millisecond=_pico(second) // 1_000,
    )


def _pico(dollars: float | None, otherwise: int = 0) -> int:
    return otherwise if dollars is None else int((Decimal(repr(dollars)) * _PICO).to_integral_value())


def _largest(values: Iterable[int | float | str | None], otherwise: int) -> int:
    return next((int(v) for v in values if isinstance(v, int | float) and v > 0), otherwise)
