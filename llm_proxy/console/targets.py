"""`/console/routes`: every model's targets, how they stand, and which would be asked now."""

from __future__ import annotations

from fastapi import Response

from llm_proxy.admin import fleet
from llm_proxy.admin.door import READERS
from llm_proxy.console.reads import Add, Store
from llm_proxy.console.visit import Visit
from llm_proxy.worker import Worker

PATH = "/console/routes"
SHOWN = 500


class TargetPages:
    def __init__(self, worker: Worker) -> None:
        self._store = Store(worker)

    def add_to(self, add: Add) -> None:
        add("GET", PATH, self.show, READERS)

    async def show(self, visit: Visit) -> Response:
        routes, now = self._store.worker.services.routes, self._store.now_us()
        model = visit.asked("model")
        lines = await self._store.read(lambda c: fleet.target_lines(routes, c, now, SHOWN + 1))
        asked = fleet.Asked(model=model)
        route = await self._store.read(lambda c: fleet.route_shown(routes, c, now, asked)) if model else None
        more = len(lines) > SHOWN
        return await visit.page(
            "routes.html", PATH, targets=lines[:SHOWN], more=more, model=model, route=route
        )
