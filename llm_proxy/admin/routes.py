"""The paths under `/admin`, each with the roles that may use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Connection

from llm_proxy.admin import (
    agents,
    approvals,
    budgets,
    fleet,
    keys,
    legal_holds,
    policy,
    policy_shown,
    policy_tools,
    prices,
    reading,
    reconciling,
    retention,
    run_events,
    runs,
    searched,
    shapes,
    shown,
    spend,
    telemetry,
    webhooks,
)
from llm_proxy.admin.approval_paths import ApprovalPaths
from llm_proxy.admin.audit_paths import AuditPaths
from llm_proxy.admin.changes import Changes
from llm_proxy.admin.content_read import ContentReads, Seen
from llm_proxy.admin.door import CONTENT_READERS, READERS, Door, Operator, require
from llm_proxy.admin.endpoints import Filter, Id, Limit, answer, holds
from llm_proxy.admin.errors import ErrorBody
from llm_proxy.admin.policy_paths import PolicyPaths
from llm_proxy.admin.posture_paths import add_posture
from llm_proxy.admin.price_paths import PricePaths
from llm_proxy.admin.reads import StoreReads
from llm_proxy.admin.retention_paths import RetentionPaths
from llm_proxy.admin.run_out_paths import Followed, RunOutPaths
from llm_proxy.admin.run_paths import RunPaths
from llm_proxy.admin.run_told import run_told
from llm_proxy.admin.search_paths import SearchPaths
from llm_proxy.admin.spend_paths import SpendPaths
from llm_proxy.admin.telemetry_paths import TelemetryPaths
from llm_proxy.admin.webhook_paths import WebhookPaths
from llm_proxy.archive.listings import knows_key, list_calls, list_refusals
from llm_proxy.audit.findings import Report
from llm_proxy.audit.lines import Line
from llm_proxy.audit.listing import CheckpointLine
from llm_proxy.audit.readings import ReadingLine
from llm_proxy.config.choices import Role
from llm_proxy.posture.answers import Posture
from llm_proxy.records.content_reads import Place
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.view import Status
from llm_proxy.worker import Worker

SHAPES: dict[str, Any] = {
    "Error": ErrorBody,
    "AgentLines": list[reading.AgentLine],
    "AgentShown": reading.AgentShown,
    "KeyLines": list[reading.KeyLine],
    "KeyLine": reading.KeyLine,
    "KeyIssued": keys.KeyIssued,
    "KeyWish": keys.KeyWish,
    "KeyRotation": keys.KeyRotation,
    "KeyRotated": keys.KeyRotated,
    "Reason": agents.Reason,
    "AgentStanding": agents.AgentStanding,
    "RunLines": list[shapes.RunLine],
    "RunLine": shapes.RunLine,
    "Followed": Followed,
    "RunEnding": runs.RunEnding,
    "RunShown": shapes.RunShown,
    "RunEventWish": run_events.RunEventWish,
    "RunEventShown": run_events.RunEventShown,
    "ApprovalLines": list[approvals.ApprovalLine],
    "ApprovalShown": approvals.ApprovalShown,
    "ApprovalWord": approvals.ApprovalWord,
    "PolicyShown": policy_shown.PolicyShown,
    "ToolLines": list[policy_tools.ToolLine],
    "CallExplanation": policy.CallExplanation,
    "Simulated": policy.Simulated,
    "CallLines": list[shapes.CallLine],
    "CallShown": shapes.CallShown,
    "SearchShown": searched.SearchShown,
    "RefusalLines": list[shapes.RefusalLine],
    "TargetLines": list[fleet.TargetLine],
    "RouteShown": fleet.RouteShown,
    "PriceLines": list[prices.PriceLine],
    "PricesShown": list[prices.PriceShown],
    "WebhookLines": list[webhooks.WebhookLine],
    "TelemetryStatus": telemetry.TelemetryStatus,
    "ReplayWish": telemetry.ReplayWish,
    "Replayed": telemetry.Replayed,
    "DeliveryLines": list[webhooks.DeliveryLine],
    "DeliveryLine": webhooks.DeliveryLine,
    "SpendShown": spend.SpendShown,
    "BudgetLines": list[budgets.BudgetLine],
    "ReconcileShown": reconciling.ReconcileShown,
    "AuditReport": Report,
    "CheckpointLines": list[CheckpointLine],
    "ReadingLines": list[ReadingLine],
    "AuditLine": Line,
    "Posture": Posture,
    "RetentionShown": retention.RetentionShown,
    "RetentionDone": retention.RetentionDone,
    "HoldLines": list[legal_holds.HoldLine],
    "HoldShown": legal_holds.HoldShown,
    "HoldWish": legal_holds.HoldWish,
}
"""What bodies hold, by the name that stands in the OpenAPI document."""


Tokens = Annotated[int, Query(ge=0, le=10**9)]


class Admin:
    """The endpoints. Those that only read are plain functions, which run in threads."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._config = worker.config
        self._door = Door(worker.config, self._is_issued)
        self._content = ContentReads(worker)
        self._read = StoreReads(worker)

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/admin", tags=["admin"])

        def add(
            method: str, path: str, endpoint: Any, shape: str, roles: frozenset[Role], **more: Any
        ) -> None:
            router.add_api_route(
                path,
                endpoint,
                methods=[method],
                dependencies=[Depends(self._guard(roles))],
                responses={more.get("status_code", 200): holds(shape), "4XX": holds("Error")},
                openapi_extra={"x-roles": sorted(roles), "security": [{"token": []}]} | more.pop("extra", {}),
                **more,
            )

        add("GET", "/agents", self.agents, "AgentLines", READERS)
        add("GET", "/agents/{agent_id:path}", self.agent, "AgentShown", READERS)
        add("GET", "/keys", self.keys, "KeyLines", READERS)
        Changes(self._worker).add_to(add)
        WebhookPaths(self._worker).add_to(add)
        TelemetryPaths(self._worker).add_to(add)
        RetentionPaths(self._worker).add_to(add)
        RunPaths(self._worker).add_to(add)
        ApprovalPaths(self._worker).add_to(add)
        PolicyPaths(self._worker).add_to(add)
        PricePaths(self._worker).add_to(add)
        SpendPaths(self._worker).add_to(add)
        AuditPaths(self._worker).add_to(add)
        add_posture(self._worker, add)
        add("GET", "/runs", self.runs, "RunLines", READERS)
        RunOutPaths(self._worker).add_to(add)
        add("GET", "/runs/{run_id:path}", self.run, "RunShown", CONTENT_READERS)
        add("GET", "/calls", self.calls, "CallLines", READERS)
        SearchPaths(self._worker).add_to(add)
        add("GET", "/calls/{call_id}", self.call, "CallShown", CONTENT_READERS)
        add("GET", "/refusals", self.refusals, "RefusalLines", READERS)
        add("GET", "/routes", self.routes, "TargetLines", READERS)
        add("GET", "/routes/{model:path}/explain", self.explain, "RouteShown", READERS)
        return router

    def agents(self, limit: Limit = 50) -> Response:
        """Every agent: its keys, calls, spend and when it was last seen."""
        with self._reading() as connection:
            return answer(reading.agent_lines(self._config, connection, self._now(), limit))

    def agent(self, agent_id: Id) -> Response:
        with self._reading() as connection:
            return answer(reading.agent_shown(self._config, connection, self._now(), agent_id))

    def keys(self, limit: Limit = 50, agent: Filter = None) -> Response:
        """Keys, less the keys: issued ones, the newest first, then the config's."""
        with self._reading() as connection:
            return answer(reading.key_lines(self._config, connection, self._now(), limit, agent=agent))

    async def runs(
        self,
        request: Request,
        limit: Limit = 50,
        agent: Filter = None,
        user: Filter = None,
        model: Filter = None,
        tool: Filter = None,
        decision: Filter = None,
        rule: Filter = None,
        error: Filter = None,
        since: Filter = None,
        until: Filter = None,
        min_cost: Annotated[float | None, Query(ge=0, le=runs.MAX_DOLLARS)] = None,
        before: Annotated[str | None, Query(max_length=runs.MAX_BEFORE)] = None,
        words: Annotated[str | None, Query(max_length=1_000)] = None,
        *,
        ended: bool = False,
        frozen: bool = False,
    ) -> Response:
        """Runs, the last begun first. `before`: go on behind one, by its `started_us`, a comma and its id.

        `words` takes a role that may read content, and is put on record.
        """
        operator: Operator = request.state.operator
        if words:
            require(operator, CONTENT_READERS)
        wish = runs.RunWish(
            agent=agent,
            user=user,
            model=model,
            tool=tool,
            decision=decision,
            rule=rule,
            error=error,
            since=since,
            until=until,
            min_cost=min_cost,
            ended=ended,
            frozen=frozen,
            before=before,
            words=words,
        )
        now = self._now()
        lines = await self._read(
            lambda connection: runs.run_lines(self._config, connection, now, limit, wish)
        )
        if words:
            await self._content.note(operator.id, Place.ADMIN, "runs list", Seen(None, words=words))
        return answer(lines)

    async def run(self, request: Request, run_id: Id, limit: Limit = 50, agent: Filter = None) -> Response:
        """A run with its first calls: what each added, what the model said, and how it was judged."""

        def read(connection: Connection) -> Seen:
            found = reading.find_run(connection, run_id, agent)
            told = run_told(self._config, connection, found, self._now(), limit)
            return Seen(told.shown(), [step.call.id for step in told.steps], found.stored.key)

        return await self._content.show(request, "runs show", read)

    def calls(
        self, limit: Limit = 50, agent: Filter = None, run: Filter = None, status: Status | None = None
    ) -> Response:
        """Calls without content, the newest first."""
        with self._reading() as connection:
            rows = list_calls(connection, limit=limit, agent=agent, run=run, status=status)
            return answer([shown.call_line(row) for row in rows])

    async def call(self, request: Request, call_id: Id) -> Response:
        """Everything one call left, content included."""

        def read(connection: Connection) -> Seen:
            found = reading.find_call(connection, call_id)
            return Seen(shown.call_shown(found), [found.id], RunKey(found.agent_id, found.run_id))

        return await self._content.show(request, "calls show", read)

    def refusals(self, limit: Limit = 50) -> Response:
        """Refusals of unidentified callers and of what else has no record, by minute and reason."""
        with self._reading() as connection:
            return answer([shown.refusal_line(row) for row in list_refusals(connection, limit=limit)])

    def routes(self, limit: Limit = 50, model: Filter = None) -> Response:
        """Every target: its breaker, the last minute's traffic against its limits, latency and failures."""
        with self._reading() as connection:
            routes, now = self._worker.services.routes, self._now()
            return answer(fleet.target_lines(routes, connection, now, limit, model=model))

    def explain(
        self, model: Id, run: Filter = None, agent: Filter = None, tokens: Tokens = 0, *, stream: bool = False
    ) -> Response:
        """Which targets a call for the model would ask now, in which order, and why. Asks none of them."""
        asked = fleet.Asked(model, agent or "", run or "", tokens, stream)
        with self._reading() as connection:
            routes, now = self._worker.services.routes, self._now()
            return answer(fleet.route_shown(routes, connection, now, asked))

    def _guard(self, roles: frozenset[Role]) -> Callable[[Request], Awaitable[None]]:
        """Asked before a path's own parameters are looked at."""

        async def guard(request: Request) -> None:
            request.state.operator = await self._door.admit(dict(request.scope["headers"]), roles)

        return guard

    def _is_issued(self, sha256: str) -> bool:
        with self._reading() as connection:
            return knows_key(connection, sha256)

    def _reading(self) -> Connection:
        return self._worker.engine.connect()

    def _now(self) -> int:
        return self._worker.services.now_us()


def schemas() -> dict[str, Any]:
    """The OpenAPI components that the routes refer to."""
    template = "#/components/schemas/{name}"
    found, components = msgspec.json.schema_components(SHAPES.values(), ref_template=template)
    named = dict(zip(SHAPES, found, strict=True))
    return components | {name: schema for name, schema in named.items() if name not in components}
