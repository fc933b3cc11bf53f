"""`/v1/runs` as a raw ASGI endpoint: an agent opens a run, asks how it stands, reports, ends it."""

from __future__ import annotations

import time

import msgspec
import structlog

from llm_proxy.errors import Kind, ProxyError, failed_inside
from llm_proxy.exchange import Exchange
from llm_proxy.http.asgi import HeaderList, Receive, Scope, Send, respond
from llm_proxy.http.body import ClientGone, read_small
from llm_proxy.http.run_reports import RunReports, no_run
from llm_proxy.http.sinks import respond_error
from llm_proxy.identity.caller import Caller
from llm_proxy.identity.headers import Headers, checked_id, read_hints
from llm_proxy.identity.issuing import Via
from llm_proxy.records.ids import uuid7
from llm_proxy.records.runstate import RunKey
from llm_proxy.runs.effects import read_effect
from llm_proxy.runs.view import RunView
from llm_proxy.runs.wish import read_end_wish, read_run_wish
from llm_proxy.services import Services
from llm_proxy.wire.action import PATH as CHECK
from llm_proxy.wire.openai_chat import OPENAI_CHAT

PATH = "/v1/runs"
_END, _EFFECTS, _RECEIPTS = "/end", "/effects", "/receipts/"
MAX_BODY = 65_536

log = structlog.get_logger("llm_proxy.http")


class RunOpened(RunView, frozen=True, kw_only=True):
    """What `POST /v1/runs` answers."""

    token: str
    """The run's token. Only its hash is stored, so this is the one time it is shown."""
    key_id: str
    """The token's public id."""


class RunsApi:
    """The endpoints under `/v1/runs`. Errors have OpenAI's shape."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._reports = RunReports(services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        now = self._services.now_us()
        exchange = Exchange(id=uuid7(now), started_us=now, dialect=OPENAI_CHAT, clock0=time.perf_counter())
        census, refused = self._services.census, None
        census.arrived()
        try:
            status, answer = await self._answer(scope, receive)
        except ClientGone:
            return
        except ProxyError as error:
            refused = error
            await respond_error(exchange, send, error)
            return
        except Exception as error:
            log.error("a request about a run failed inside the proxy", id=exchange.id, exc_info=error)
            await respond_error(exchange, send, failed_inside())
            return
        finally:
            census.without_call(refused)
        headers: HeaderList = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        await respond(send, status, headers, msgspec.json.encode(answer))

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, msgspec.Struct]:
        services = self._services
        headers: Headers = dict(scope["headers"])
        caller = await services.access.identify(headers)
        services.standing.check(caller)
        rest: str = scope["path"].removeprefix(PATH)
        match scope["method"]:
            case "POST" if rest == "":
                body = await read_small(receive, headers, MAX_BODY)
                return 201, await self._open(caller, headers, body)
            case "POST" if rest.startswith("/") and rest.endswith(_END) and len(rest) > len(_END) + 1:
                body = await read_small(receive, headers, MAX_BODY)
                return 200, await self._end(caller, rest[1 : -len(_END)], body)
            case "POST" if rest.startswith("/") and rest.endswith(_EFFECTS) and len(rest) > len(_EFFECTS) + 1:
                wish = read_effect(await read_small(receive, headers, MAX_BODY))
                return 201, await self._reports.effect(caller, rest[1 : -len(_EFFECTS)], wish)
            case "GET" if rest.startswith("/") and _RECEIPTS in rest[1:]:
                run_id, _, tool_call_id = rest[1:].rpartition(_RECEIPTS)
                return 200, await self._reports.receipt(caller, run_id, tool_call_id)
            case "GET" if len(rest) > 1 and rest.startswith("/"):
                return 200, await self._run(caller, rest[1:])
            case method:
                raise ProxyError(
                    Kind.UNSUPPORTED_FEATURE,
                    f"{method} {scope['path'][:200]} is not served. Served: POST {PATH}, GET {PATH}/{{id}}, "
                    f"POST {PATH}/{{id}}/end, POST {PATH}/{{id}}/effects, "
                    f"GET {PATH}/{{id}}/receipts/{{tool_call_id}}, POST {CHECK}.",
                    status=404,
                    retryable=False,
                )

    async def _open(self, caller: Caller, headers: Headers, body: bytes) -> RunOpened:
        token = read_hints(headers).run_token
        view, key = await self._services.desk.open(caller, token, read_run_wish(body))
        return RunOpened(**msgspec.structs.asdict(view), token=key.key, key_id=key.id)

    async def _run(self, caller: Caller, run_id: str) -> RunView:
        key = RunKey(caller.agent.id, checked_id(run_id, "the path"))
        desk = self._services.desk
        found = await desk.view(key) if await desk.may_see(caller, key) else None
        if found is None:
            raise no_run(caller, run_id)
        return found

    async def _end(self, caller: Caller, run_id: str, body: bytes) -> RunView:
        wish = read_end_wish(body)
        found = await self._run(caller, run_id)
        key = RunKey(found.agent_id, found.run_id)
        await self._services.desk.end(key, why=wish.why.strip(), by=caller.key_id, via=Via.RUNS)
        return await self._run(caller, run_id)
