"""The paths of the export under `/admin`."""

from __future__ import annotations

import asyncio
import os
from threading import Lock

from fastapi import Request, Response

from llm_proxy.admin import telemetry
from llm_proxy.admin.changes import Add
from llm_proxy.admin.door import ADMINS, READERS
from llm_proxy.admin.endpoints import Limit, answer, body_of, holds
from llm_proxy.admin.errors import Conflict
from llm_proxy.worker import Worker

MOST_S = 60.0
"""Within one request; the command line has no such end."""


class TelemetryPaths:
    """Sending again is one at a time in a process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._replaying = Lock()

    def add_to(self, add: Add) -> None:
        add("GET", "/telemetry", self.status, "TelemetryStatus", READERS)
        body = {"requestBody": holds("ReplayWish")}
        add("POST", "/telemetry/replay", self.replay, "Replayed", ADMINS, extra=body)

    def status(self, limit: Limit = 50) -> Response:
        """How far the OTLP export is, and the spans that the backend refused, the newest first."""
        worker = self._worker
        with worker.engine.connect() as connection:
            now = worker.services.now_us()
            return answer(telemetry.telemetry_status(worker.config, connection, limit, now))

    async def replay(self, request: Request) -> Response:
        """Send spans again: those of a run, since a time, or the dead letters. Takes a minute at most."""
        wish = await body_of(request, telemetry.ReplayWish, _WISH)
        return answer(await asyncio.to_thread(self._replay, wish))

    def _replay(self, wish: telemetry.ReplayWish) -> telemetry.Replayed:
        if not self._replaying.acquire(blocking=False):
            raise Conflict("Spans are being sent again just now: try once that is done.")
        try:
            worker = self._worker
            now = worker.services.now_us()
            return telemetry.replay(worker.config, worker.engine, wish, now, os.environ, MOST_S)
        finally:
            self._replaying.release()


_WISH = '{"run": "run-7"}'
