"""The paths of prices under `/admin`."""

from __future__ import annotations

from fastapi import Response

from llm_proxy import wiring
from llm_proxy.admin import prices
from llm_proxy.admin.changes import Add
from llm_proxy.admin.door import READERS
from llm_proxy.admin.endpoints import Id, Limit, answer
from llm_proxy.worker import Worker


class PricePaths:
    """Plain functions, which run in threads: the price table is read again for each, since it is large."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def add_to(self, add: Add) -> None:
        add("GET", "/prices", self.list, "PriceLines", READERS)
        add("GET", "/prices/{model:path}", self.show, "PricesShown", READERS)

    def list(self, limit: Limit = 50) -> Response:
        """What the model of each target costs, in USD for a million tokens."""
        routes, book = self._worker.services.routes, wiring.prices(self._worker.config)
        with self._worker.engine.connect() as connection:
            return answer(prices.price_lines(routes, book, connection, limit))

    def show(self, model: Id, limit: Limit = 50) -> Response:
        """Every rate of a model of the config, at each of its targets, or of a name of the price table."""
        routes, book = self._worker.services.routes, wiring.prices(self._worker.config)
        with self._worker.engine.connect() as connection:
            return answer(prices.prices_shown(routes, book, connection, model, limit))
