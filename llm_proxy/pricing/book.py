"""Prices by provider and model: the config's own, and the litellm package's table, read as a file."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llm_proxy.pricing.price import Price
from llm_proxy.pricing.row import listed, price_of

TABLE = "model_prices_and_context_window_backup.json"
CONFIG = "config"
"""Where a price is from that the config gives: how its version begins."""
_REMEMBERED = 10_000
"""Callers choose the model's name where a target is `*`, so what is remembered has to end somewhere."""

_read = msgspec.json.Decoder(dict[str, Any]).decode


class PriceBook:
    """Prices by (provider, model), looked up once at load for the models that the config names."""

    def __init__(self, overrides: Mapping[str, Mapping[str, object]], table: Path | None = None) -> None:
        self._overrides = {name: listed(row) for name, row in overrides.items()}
        self._path = table or table_path()
        self._rows: dict[str, msgspec.Raw] | None = None
        self._known: dict[tuple[str, str], Price | None] = {}
        self._versions: dict[str, Price] = {}
        self._source = f"litellm-{package_version()}" if table is None else "table"

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
            self._versions.clear()
        price = self._known[key] = self._look_up(provider, model)
        if price is not None:
            self._versions[price.version] = price
        return price

    def version(self, version: str) -> Price | None:
        """The price of that version, where it was found lately."""
        return self._versions.get(version)

    def names(self) -> list[str]:
        """Every name that the config or the table prices, the config's first."""
        return list(dict.fromkeys((*self._overrides, *self._table())))

    def provider_of(self, name: str) -> str:
        """Whose model a row of the table is; empty where there is no such row, or it doesn't say."""
        row = self._table().get(name)
        return "" if row is None else str(_read(row).get("litellm_provider") or "")

    def _look_up(self, provider: str, model: str) -> Price | None:
        names = (f"{provider}/{model}", model)
        for name in names:
            if name in self._overrides:
                return price_of(self._overrides[name], provider, model, CONFIG)
        if provider == "scripted":
            return None
        rows = self._table()
        for name in names:
            if name in rows:
                return price_of(listed(_read(rows[name])), provider, model, self._source)
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


def package_version() -> str:
    """The installed litellm's."""
    return importlib.metadata.version("litellm")
