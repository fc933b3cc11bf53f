"""`/console/audit`: the evidence verified while one watches, its checkpoints, and who read what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

import structlog
from fastapi import Response
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.admin.audit import verified
from llm_proxy.admin.door import CONTENT_READERS
from llm_proxy.admin.errors import Unclear
from llm_proxy.audit.findings import Report
from llm_proxy.audit.listing import checkpoint_lines
from llm_proxy.audit.source import one_moment
from llm_proxy.console.live import event, events
from llm_proxy.console.pages import Pages
from llm_proxy.console.reads import Add, Store
from llm_proxy.console.visit import Refused, Visit
from llm_proxy.records.content_reads import read_content_read
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.tables import records
from llm_proxy.worker import Worker

log = structlog.get_logger("llm_proxy.console")

PATH = "/console/audit"
CHECKPOINTS = 20
READS = 100
FINDINGS = 100
TELL_EVERY_S = 0.5


class _Left(Exception):
    """Who asked is gone."""


class AuditPages:
    def __init__(self, worker: Worker, pages: Pages) -> None:
        self._store = Store(worker)
        self._pages = pages
        self._one = asyncio.Lock()

    def add_to(self, add: Add) -> None:
        add("GET", PATH, self.show, CONTENT_READERS)
        add("GET", PATH + "/verify", self.verify, CONTENT_READERS)

    async def show(self, visit: Visit) -> Response:
        before = visit.asked("before")
        if before and not (before.isascii() and before.isdigit() and len(before) < 19):
            raise Unclear("before: that is no time.")
        until = int(before) if before else None
        checkpoints = await self._store.read(lambda c: checkpoint_lines(c, CHECKPOINTS))
        reads = await self._store.read(lambda c: _reads(c, until))
        further = reads[-1]["at_us"] if len(reads) == READS else None
        return visit.page("audit.html", PATH, checkpoints=checkpoints, reads=reads, further=further)

    async def verify(self, visit: Visit) -> Response:
        """Events: `progress` with words, at the end `report` with a piece of the page."""
        if self._one.locked():
            raise Refused(409, "Not just now", "The evidence is being verified: try again after that.")
        return events(self._verifying())

    async def _verifying(self) -> AsyncGenerator[bytes]:
        left, now_at = threading.Event(), ["Reading", 0, 0]

        def told(what: str, done: int, whole: int) -> None:
            if left.is_set():
                raise _Left
            now_at[:] = [what, done, whole]

        def run() -> Report:
            with one_moment(self._store.worker.engine) as connection:
                return verified(connection, self._keys(), FINDINGS, told)

        async with self._one:
            work = asyncio.create_task(asyncio.to_thread(run))
            try:
                while not (await asyncio.wait({work}, timeout=TELL_EVERY_S))[0]:
                    what, done, whole = now_at
                    yield event(
                        "progress", f"{what}: {done:,} of {whole:,}" if whole else f"{what}: {done:,}"
                    )
                yield event("report", self._pages.piece("verified.html", report=work.result()))
            except SQLAlchemyError as error:
                log.error("the store can't be read", error=type(error).__name__)
                yield event("report", "The store can't be read just now: try again shortly.")
            finally:
                left.set()
                await asyncio.shield(asyncio.gather(work, return_exceptions=True))

    def _keys(self) -> dict[str, bytes]:
        key = self._store.worker.services.receipts.key
        return {key.id: key.public} if key is not None else {}


def _reads(connection: Connection, before_us: int | None) -> list[dict[str, Any]]:
    """Who was shown what, the newest first."""
    c = records.c
    query = select(c.at_us, c.run_id, c.agent_id, c.body).where(c.kind == RecordKind.CONTENT_READ.value)
    if before_us is not None:
        query = query.where(c.at_us < before_us)
    rows = connection.execute(query.order_by(c.at_us.desc()).limit(READS))
    return [
        {
            "at_us": row.at_us,
            "run_id": row.run_id,
            "agent_id": row.agent_id,
            "read": read_content_read(bytes(row.body)),
        }
        for row in rows
    ]
