"""The paths of retention and legal holds under `/admin`."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request, Response

from llm_proxy.admin import legal_holds, retention
from llm_proxy.admin.changes import Add
from llm_proxy.admin.door import ADMINS, CONTENT_READERS, Operator
from llm_proxy.admin.endpoints import Id, Limit, answer, body_of, holds
from llm_proxy.admin.reads import StoreReads
from llm_proxy.identity.issuing import Via
from llm_proxy.retention.exporting import ExportFailed
from llm_proxy.retention.held import TooManyHeld
from llm_proxy.retention.keeper import Busy
from llm_proxy.worker import Worker


class RetentionPaths:
    """A hold is committed, with who placed it, before it's answered."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._read = StoreReads(worker)

    def add_to(self, add: Add) -> None:
        add("GET", "/retention", self.status, "RetentionShown", CONTENT_READERS)
        add("POST", "/retention/run", self.run, "RetentionDone", ADMINS)
        add("GET", "/legal-holds", self.list, "HoldLines", CONTENT_READERS)
        wish = {"requestBody": holds("HoldWish")}
        add("POST", "/runs/{run_id:path}/legal-hold", self.place, "HoldShown", ADMINS, extra=wish)
        add("POST", "/runs/{run_id:path}/legal-hold/release", self.release, "HoldShown", ADMINS, extra=wish)

    def status(self, limit: Limit = 50) -> Response:
        """What is due to be deleted, what holds keep of it, and what was deleted."""
        worker = self._worker
        with worker.engine.connect() as connection:
            now = worker.services.now_us()
            return answer(retention.shown(worker.config, connection, now, limit))

    async def run(self, request: Request) -> Response:
        """Delete what is due now, and not at the next turn; answers when it's done."""
        operator: Operator = request.state.operator
        try:
            return answer(retention.done(await self._worker.retention.turn(operator.id)))
        except Busy:
            raise retention.busy() from None
        except (ExportFailed, TooManyHeld) as error:
            raise retention.stuck(error) from None

    def list(self, limit: Limit = 50, *, released: bool = False) -> Response:
        """Legal holds, the last placed first; with `released` also those that stand no more."""
        with self._worker.engine.connect() as connection:
            return answer(legal_holds.hold_lines(connection, limit, released=released))

    async def place(self, request: Request, run_id: Id) -> Response:
        """Place a legal hold: the content of the run, and of the runs below it, stays until it's released."""
        return await self._change(request, run_id, legal_holds.placing)

    async def release(self, request: Request, run_id: Id) -> Response:
        """Release a legal hold: what is due of the run's content goes with the next turn of retention."""
        return await self._change(request, run_id, legal_holds.releasing)

    async def _change(
        self, request: Request, run_id: str, change: Callable[..., legal_holds.Job]
    ) -> Response:
        wish = await body_of(request, legal_holds.HoldWish, _EXAMPLE)
        operator: Operator = request.state.operator
        services = self._worker.services
        key = await self._read(lambda connection: legal_holds.meant(connection, run_id, wish))
        job = change(key, wish, services.now_us(), by=operator.id, via=Via.ADMIN)
        outcome = await services.writer.submit(job)
        return answer(await self._read(lambda connection: legal_holds.hold_shown(connection, key, outcome)))


_EXAMPLE = '{"reason": "request 7 of the court in Ghent"}'
