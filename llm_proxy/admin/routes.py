"""The paths under `/admin`, each with the roles that may use it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import AfterValidator
from sqlalchemy import Connection

from llm_proxy.admin import fleet, keys, reading, shapes, shown
from llm_proxy.admin.door import ADMINS, CONTENT_READERS, READERS, Door, Operator
from llm_proxy.admin.errors import ErrorBody, Unclear
from llm_proxy.archive.listings import KeyView, knows_key, list_calls, list_refusals, list_runs
from llm_proxy.config.choices import Role
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity import issuing
from llm_proxy.identity.issuing import Via
from llm_proxy.identity.keyring import new_key
from llm_proxy.records.batch import Job
from llm_proxy.records.view import Status
from llm_proxy.worker import Worker

MAX_BODY = 65_536
SHAPES: dict[str, Any] = {
    "Error": ErrorBody,
    "AgentLines": list[reading.AgentLine],
    "AgentShown": reading.AgentShown,
    "KeyLines": list[reading.KeyLine],
    "KeyLine": reading.KeyLine,
    "KeyIssued": keys.KeyIssued,
    "KeyWish": keys.KeyWish,
    "RunLines": list[shapes.RunLine],
    "RunShown": shapes.RunShown,
    "CallLines": list[shapes.CallLine],
    "CallShown": shapes.CallShown,
    "RefusalLines": list[shapes.RefusalLine],
    "TargetLines": list[fleet.TargetLine],
    "RouteShown": fleet.RouteShown,
}
"""What bodies hold, by the name that stands in the OpenAPI document."""


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("holds characters that don't print")
    return value


Id = Annotated[str, AfterValidator(_printable), Path(max_length=256)]
Filter = Annotated[str | None, AfterValidator(lambda v: v and _printable(v)), Query(max_length=256)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Tokens = Annotated[int, Query(ge=0, le=10**9)]


class Admin:
    """The endpoints. Those that only read are plain functions, which run in threads."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._config = worker.config
        self._door = Door(worker.config, self._is_issued)

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
                responses={more.get("status_code", 200): _holds(shape), "4XX": _holds("Error")},
                openapi_extra={"x-roles": sorted(roles), "security": [{"token": []}]} | more.pop("extra", {}),
                **more,
            )

        add("GET", "/agents", self.agents, "AgentLines", READERS)
        add("GET", "/agents/{agent_id:path}", self.agent, "AgentShown", READERS)
        add("GET", "/keys", self.keys, "KeyLines", READERS)
        add(
            "POST",
            "/keys",
            self.issue,
            "KeyIssued",
            ADMINS,
            status_code=201,
            extra={"requestBody": _holds("KeyWish")},
        )
        add("POST", "/keys/{key_id}/revoke", self.revoke, "KeyLine", ADMINS)
        add("GET", "/runs", self.runs, "RunLines", READERS)
        add("GET", "/runs/{run_id:path}", self.run, "RunShown", CONTENT_READERS)
        add("GET", "/calls", self.calls, "CallLines", READERS)
        add("GET", "/calls/{call_id}", self.call, "CallShown", CONTENT_READERS)
        add("GET", "/refusals", self.refusals, "RefusalLines", READERS)
        add("GET", "/routes", self.routes, "TargetLines", READERS)
        add("GET", "/routes/{model:path}/explain", self.explain, "RouteShown", READERS)
        return router

    def agents(self, limit: Limit = 50) -> Response:
        """Every agent: its keys, calls, spend and when it was last seen."""
        with self._reading() as connection:
            return _json(reading.agent_lines(self._config, connection, self._now(), limit))

    def agent(self, agent_id: Id) -> Response:
        with self._reading() as connection:
            return _json(reading.agent_shown(self._config, connection, self._now(), agent_id))

    def keys(self, limit: Limit = 50, agent: Filter = None) -> Response:
        """Keys, less the keys: issued ones, the newest first, then the config's."""
        with self._reading() as connection:
            return _json(reading.key_lines(self._config, connection, self._now(), limit, agent=agent))

    async def issue(self, request: Request) -> Response:
        """Issue a key for an agent. The reply is the only place where the key itself is ever shown."""
        wish = _wish(await _body(request))
        new = keys.order(self._config, wish, self._now(), new_key, lambda: secrets.token_hex(6))
        operator: Operator = request.state.operator
        await self._commit(issuing.issue(new, by=operator.id, via=Via.ADMIN))
        return _json(keys.issued(new), 201)

    async def revoke(self, request: Request, key_id: Id) -> Response:
        """Revoke an issued key; every worker stops taking it within a second."""
        key = await asyncio.to_thread(self._issued_key, key_id)
        now = self._now()
        if key.revoked_us is None:
            operator: Operator = request.state.operator
            await self._commit(keys.revocation(key, now, by=operator.id, via=Via.ADMIN))
        return _json(keys.revoked(key, now))

    def runs(self, limit: Limit = 50, agent: Filter = None) -> Response:
        """Runs, the last begun first."""
        with self._reading() as connection:
            return _json([shown.run_line(row) for row in list_runs(connection, limit=limit, agent=agent)])

    def run(self, run_id: Id, limit: Limit = 50, agent: Filter = None) -> Response:
        """A run with its first calls: what each added, what the model said, and how it was judged."""
        with self._reading() as connection:
            found = reading.find_run(connection, run_id, agent)
            return _json(shown.run_shown(found, reading.run_steps(connection, found, limit)))

    def calls(
        self, limit: Limit = 50, agent: Filter = None, run: Filter = None, status: Status | None = None
    ) -> Response:
        """Calls without content, the newest first."""
        with self._reading() as connection:
            rows = list_calls(connection, limit=limit, agent=agent, run=run, status=status)
            return _json([shown.call_line(row) for row in rows])

    def call(self, call_id: Id) -> Response:
        """Everything one call left, content included."""
        with self._reading() as connection:
            return _json(shown.call_shown(reading.find_call(connection, call_id)))

    def refusals(self, limit: Limit = 50) -> Response:
        """Refusals of callers who could not be identified, counted by minute and reason."""
        with self._reading() as connection:
            return _json([shown.refusal_line(row) for row in list_refusals(connection, limit=limit)])

    def routes(self, limit: Limit = 50, model: Filter = None) -> Response:
        """Every target: its breaker, the last minute's traffic against its limits, latency and failures."""
        with self._reading() as connection:
            routes, now = self._worker.services.routes, self._now()
            return _json(fleet.target_lines(routes, connection, now, limit, model=model))

    def explain(
        self, model: Id, run: Filter = None, agent: Filter = None, tokens: Tokens = 0, *, stream: bool = False
    ) -> Response:
        """Which targets a call for the model would ask now, in which order, and why. Asks none of them."""
        asked = fleet.Asked(model, agent or "", run or "", tokens, stream)
        with self._reading() as connection:
            routes, now = self._worker.services.routes, self._now()
            return _json(fleet.route_shown(routes, connection, now, asked))

    def _guard(self, roles: frozenset[Role]) -> Callable[[Request], Awaitable[None]]:
        """Asked before a path's own parameters are looked at."""

        async def guard(request: Request) -> None:
            request.state.operator = await self._door.admit(dict(request.scope["headers"]), roles)

        return guard

    async def _commit(self, job: Job) -> None:
        """Done once committed; this worker takes notice at once if it can, else with its next look."""
        await self._worker.services.writer.submit(job)
        with contextlib.suppress(ProxyError):
            await self._worker.services.access.refresh()

    def _is_issued(self, sha256: str) -> bool:
        with self._reading() as connection:
            return knows_key(connection, sha256)

    def _issued_key(self, id_: str) -> KeyView:
        with self._reading() as connection:
            return reading.issued_key(self._config, connection, id_)

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


def _holds(shape: str) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}}


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, {"cache-control": "no-store"}, "application/json")


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise ProxyError(Kind.BODY_TOO_LARGE, f"The body is over {MAX_BODY} bytes: send less.")
    return body


def _wish(body: bytes) -> keys.KeyWish:
    try:
        return msgspec.json.decode(body, type=keys.KeyWish)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unclear(f"The body is no wish for a key, such as {_EXAMPLE}: {error}") from None


_EXAMPLE = '{"agent_id": "triage-bot", "ttl": "1h", "run_id": "run-7"}'
