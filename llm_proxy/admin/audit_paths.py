"""The paths under `/admin` by which operators verify the evidence, and take it away with its proof."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import structlog
from fastapi import Request, Response
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.admin import audit
from llm_proxy.admin.changes import Add
from llm_proxy.admin.door import CONTENT_READERS, READERS, Operator
from llm_proxy.admin.endpoints import Filter, Limit, answer
from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.from_thread import from_thread
from llm_proxy.admin.streamed import Streamed
from llm_proxy.admin.verifying import not_twice, verifying
from llm_proxy.audit.export import CannotExport, Order, export
from llm_proxy.audit.listing import checkpoint_lines
from llm_proxy.audit.readings import reading_lines
from llm_proxy.audit.source import Source, one_moment
from llm_proxy.records.content_reads import Place, read_job
from llm_proxy.worker import Worker

log = structlog.get_logger("llm_proxy.admin")

_LOOK_S = 0.5


class AuditPaths:
    """Reads that may take minutes: one at a time, each of one moment, until its caller leaves or stalls."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def add_to(self, add: Add) -> None:
        add("GET", "/audit/verify", self.verify, "AuditReport", CONTENT_READERS)
        add("GET", "/audit/checkpoints", self.checkpoints, "CheckpointLines", READERS)
        add("GET", "/audit/readings", self.readings, "ReadingLines", CONTENT_READERS)
        add("GET", "/audit/export", self.export, "AuditLine", CONTENT_READERS)

    async def verify(self, request: Request, limit: Limit = 50, since: Filter = None) -> Response:
        """Verify every chain, checkpoint and row of content, or those since a checkpoint."""
        not_twice(self._worker)
        async with verifying(self._worker, limit, since) as found:
            while not (await asyncio.wait({found.work}, timeout=_LOOK_S))[0]:
                if await request.is_disconnected():
                    return Response(status_code=499)
            return answer(await found.work)

    def checkpoints(self, limit: Limit = 50) -> Response:
        """The signed checkpoints, the newest first: kept elsewhere, they prove all that came before."""
        with self._worker.engine.connect() as connection:
            return answer(checkpoint_lines(connection, limit))

    def readings(self, limit: Limit = 50, before: Filter = None) -> Response:
        """Who was shown content, the newest first; on from an answer's last `id` with `before`."""
        with self._worker.engine.connect() as connection:
            try:
                return answer(reading_lines(connection, limit, before))
            except ValueError as error:
                raise Unclear(str(error)) from None

    async def export(
        self,
        request: Request,
        since: Filter = None,
        until: Filter = None,
        agent: Filter = None,
        run: Filter = None,
        *,
        content: bool = False,
        checkpoints: bool = False,
    ) -> Response:
        """Records as JSON Lines (`AuditLine`s), with what verifies them alone. It is recorded."""
        services, operator = self._worker.services, request.state.operator
        assert isinstance(operator, Operator)
        now = services.now_us()
        wish = audit.wanted(since, until, agent, run, now, checkpoints=checkpoints)
        order = Order(operator.id, wish, content, services.receipts.key, now)
        not_twice(self._worker)
        async with self._worker.auditing:
            count = await asyncio.to_thread(self._count)
            await services.writer.submit(read_job(*audit.told(order, Place.ADMIN, count)))
        headers = {"cache-control": "no-store", "content-disposition": 'attachment; filename="records.jsonl"'}
        return Streamed(self._stream(order), headers, "application/x-ndjson")

    async def _stream(self, order: Order) -> AsyncGenerator[bytes]:
        def make() -> Iterator[bytes]:
            with one_moment(self._worker.engine) as connection:
                yield from export(Source(connection), order)

        try:
            # The answer has begun: it waits its turn.
            async with self._worker.auditing, aclosing(from_thread(make)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (CannotExport, SQLAlchemyError) as error:
            # Without its last line no export verifies.
            log.error("an export broke off", error=str(error)[:200])
            raise

    def _count(self) -> int:
        with self._worker.engine.connect() as connection:
            return Source(connection).count()
