"""What LiteLLM knows of models by itself: the price table of the litellm package, read as a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from llm_proxy.pricing.book import table_path
from llm_proxy.pricing.names import SIZES
from llm_proxy.pricing.row import listed, prices_something

_SERVED = frozenset({"chat", "completion", "embedding", "responses"})
_FAMILIES = (("gpt-", "openai"), ("ft:gpt-", "openai"), ("claude-", "anthropic"))
"""Names that LiteLLM gives to a provider where its table lacks them."""


class _Entry(msgspec.Struct, frozen=True):
    litellm_provider: str = ""
    mode: str = ""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Models by the names of LiteLLM's table."""

    _entries: Mapping[str, _Entry] = field(repr=False, default_factory=dict[str, _Entry])
    _rows: Mapping[str, msgspec.Raw] = field(repr=False, default_factory=dict[str, msgspec.Raw])

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
            row = _row(self._rows[name]) if name in self._entries else {}
            if prices_something(row):
                return row
        return None


def read_catalogue(path: Path | None = None) -> Catalogue:
    """Reads the table. Rows of another form than the known one are left out. Raises OSError."""
    rows = msgspec.json.decode((path or table_path()).read_bytes(), type=dict[str, msgspec.Raw])
    entries = {name: entry for name, raw in rows.items() if (entry := _decoded(raw)) is not None}
    return Catalogue(entries, rows)


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


def _row(raw: msgspec.Raw) -> dict[str, float]:
    known = listed(msgspec.json.decode(raw, type=dict[str, Any]))
    sizes = {name: int(value) for name, value in known.items() if name in SIZES and value >= 1}
    return {name: value for name, value in known.items() if name not in SIZES} | sizes
