"""What LiteLLM knows of models by itself: the price table of the litellm package, read as a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from llm_proxy.importing.prices import RATES, SIZES
from llm_proxy.upstream.prices import PriceRow, table_path

_SERVED = frozenset({"chat", "completion", "embedding", "responses"})
_FAMILIES = (("gpt-", "openai"), ("ft:gpt-", "openai"), ("claude-", "anthropic"))
"""Names that LiteLLM gives to a provider where its table lacks them."""


class _Entry(PriceRow, frozen=True, kw_only=True):
    litellm_provider: str = ""
    mode: str = ""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Models by the names of LiteLLM's table."""

    _entries: Mapping[str, _Entry] = field(repr=False, default_factory=dict[str, _Entry])

    def provider_of(self, model: str) -> str | None:
        """Who serves a model that is named without a provider; None where LiteLLM would not know."""
        if model == "*":
            return "openai"
        entry = self._entries.get(model)
        if entry is not None and entry.litellm_provider:
            return _provider(entry.litellm_provider)
        return next((provider for start, provider in _FAMILIES if model.startswith(start)), None)

    def models_of(self, provider: str) -> tuple[str, ...]:
        """The models that a provider is known to serve, by the names that the provider has for them."""
        found = (
            name.removeprefix(f"{provider}/")
            for name, entry in self._entries.items()
            if entry.mode in _SERVED
            and _provider(entry.litellm_provider) == provider
            and not name.startswith("ft:")
        )
        return tuple(sorted(set(found)))

    def price_of(self, names: Iterable[str]) -> Mapping[str, float] | None:
        """The row of the first of `names` that has a price, as far as proxy.yaml can say it."""
        for name in names:
            entry = self._entries.get(name)
            row = _row(entry) if entry is not None else {}
            if any(rate in row for rate in RATES):
                return row
        return None


def read_catalogue(path: Path | None = None) -> Catalogue:
    """Reads the table. Rows of another form than the known one are left out. Raises OSError."""
    rows = msgspec.json.decode((path or table_path()).read_bytes(), type=dict[str, msgspec.Raw])
    return Catalogue({name: entry for name, raw in rows.items() if (entry := _decoded(raw)) is not None})


def _decoded(raw: msgspec.Raw) -> _Entry | None:
    try:
        return msgspec.json.decode(raw, type=_Entry)
    except msgspec.ValidationError:
        return None


def _provider(name: str) -> str:
    """The table tells kinds of models apart where there is one provider."""
    if name.startswith("vertex_ai-"):
        return "vertex_ai"
    return "bedrock" if name == "bedrock_converse" else name


def _row(entry: _Entry) -> dict[str, float]:
    rates: dict[str, float | None] = {name: getattr(entry, name) for name in RATES}
    sizes: dict[str, float | str | None] = {name: getattr(entry, name) for name in SIZES}
    row: dict[str, float] = {name: rate for name, rate in rates.items() if rate is not None and rate >= 0}
    return row | {name: int(n) for name, n in sizes.items() if isinstance(n, int | float) and n >= 1}
