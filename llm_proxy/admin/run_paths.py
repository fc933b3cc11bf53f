"""The paths under `/admin` by which an operator ends a run, or says that something happened in it."""

from __future__ import annotations

from fastapi import Request, Response

from llm_proxy.admin import run_events, runs
from llm_proxy.admin.changes import Add
from llm_proxy.admin.door import ADMINS, APPROVERS, Operator
from llm_proxy.admin.endpoints import Id, answer, body_of, holds
from llm_proxy.admin.reads import StoreReads
from llm_proxy.identity.issuing import Via
from llm_proxy.worker import Worker


class RunPaths:
    """An end is committed, with who made it, before it's answered; every worker heeds it within a second."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._read = StoreReads(worker)

    def add_to(self, add: Add) -> None:
        body = {"requestBody": holds("RunEnding")}
        add("POST", "/runs/{run_id:path}/end", self.end, "RunLine", ADMINS, extra=body)
        event = {"requestBody": holds("RunEventWish")}
        add("POST", "/runs/{run_id:path}/events", self.report, "RunEventShown", APPROVERS, extra=event)

    async def end(self, request: Request, run_id: Id) -> Response:
        """End a run and the runs below it: their calls are refused, and those that are open end."""
        wish = await body_of(request, runs.RunEnding, _EXAMPLE)
        operator: Operator = request.state.operator
        services = self._worker.services
        key, why = await self._read(lambda connection: runs.ending(connection, run_id, wish))
        await services.desk.end(key, why=why, by=operator.id, via=Via.ADMIN)
        config, now = self._worker.config, services.now_us()
        return answer(await self._read(lambda connection: runs.ended(config, connection, key, now)))

    async def report(self, request: Request, run_id: Id) -> Response:
        """Say that something happened in a run which the policy may require, such as `human-checkpoint`."""
        wish = await body_of(request, run_events.RunEventWish, _EVENT)
        operator: Operator = request.state.operator
        services = self._worker.services
        key = await self._read(lambda connection: run_events.meant(connection, run_id, wish))
        job, shown = run_events.happening(key, wish, services.now_us(), by=operator.id, via=Via.ADMIN)
        await services.writer.submit(job)
        return answer(shown)


_EVENT = '{"reason": "read the draft"}'
_EXAMPLE = '{"why": "it went round in circles"}'
