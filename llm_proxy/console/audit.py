"""`/console/audit`: the evidence verified while one watches, its checkpoints, and who read what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import structlog
from fastapi import Response
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.admin.door import CONTENT_READERS
from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.verifying import not_twice, verifying
from llm_proxy.audit.listing import checkpoint_lines
from llm_proxy.audit.readings import reading_lines
from llm_proxy.console.aside import aside
from llm_proxy.console.live import event, events
from llm_proxy.console.pages import Pages
from llm_proxy.console.reads import Add, Store
from llm_proxy.console.visit import Visit
from llm_proxy.worker import Worker

log = structlog.get_logger("llm_proxy.console")

PATH = "/console/audit"
CHECKPOINTS = 20
READS = 100
FINDINGS = 100
TELL_EVERY_S = 0.5


class AuditPages:
    def __init__(self, worker: Worker, pages: Pages) -> None:
        self._store = Store(worker)
        self._pages = pages

    def add_to(self, add: Add) -> None:
        add("GET", PATH, self.show, CONTENT_READERS)
        add("GET", PATH + "/verify", self.verify, CONTENT_READERS)

    async def show(self, visit: Visit) -> Response:
        before = visit.asked("before") or None
        checkpoints = await self._store.read(lambda c: checkpoint_lines(c, CHECKPOINTS))
        try:
            found = await self._store.read(lambda c: reading_lines(c, READS + 1, before))
        except ValueError as error:
            raise Unclear(str(error)) from None
        reads = found[:READS]
        further = reads[-1].id if len(found) > READS else None
        return await visit.page("audit.html", PATH, checkpoints=checkpoints, reads=reads, further=further)

    async def verify(self, visit: Visit) -> Response:
        """Events: `progress` with words, at the end `report` with a piece of the page."""
        not_twice(self._store.worker)
        return events(self._verifying())

    async def _verifying(self) -> AsyncGenerator[bytes]:
        try:
            async with verifying(self._store.worker, FINDINGS, aside=aside) as found:
                while not (await asyncio.wait({found.work}, timeout=TELL_EVERY_S))[0]:
                    done = f"{found.done:,} of {found.whole:,}" if found.whole else f"{found.done:,}"
                    yield event("progress", f"{found.what}: {done}")
                yield event("report", self._pages.piece("verified.html", report=found.work.result()))
        except SQLAlchemyError as error:
            log.error("the store can't be read", error=type(error).__name__)
            yield event("report", "The store can't be read just now: try again shortly.")
