"""Which prices the store knows already: every version that a cost was counted with is written there once."""

from __future__ import annotations

from collections.abc import Iterable

from llm_proxy.pricing.price import Price
from llm_proxy.pricing.row import written
from llm_proxy.records.columns import column
from llm_proxy.records.evidence import PriceRow

_MOST = 10_000
"""Where callers choose models there is no end to versions; one told twice is ignored by the store."""


class Told:
    """One process's memory of it. A version counts as told once its row is committed."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def rows(self, prices: Iterable[Price | None], now_us: int) -> tuple[PriceRow, ...]:
        """Of those that the store may not have yet, to be written with the costs that they explain."""
        new = {p.version: p for p in prices if p is not None and p.version and p.version not in self._told}
        return tuple([_row(price, now_us) for price in new.values()]) if new else ()

    def committed(self, rows: Iterable[PriceRow]) -> None:
        for row in rows:
            if len(self._told) >= _MOST:
                self._told.clear()
            self._told.add(row.version)


def _row(price: Price, now_us: int) -> PriceRow:
    return PriceRow(
        column(price.version, 64),
        column(price.provider, 64),
        column(price.model),
        written(price.listed),
        now_us,
    )
