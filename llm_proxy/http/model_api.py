"""The model routes as raw ASGI endpoints: identify, read, parse, and hand over to the pipeline."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Set as AbstractSet

import structlog
from msgspec import structs

from llm_proxy.call_log import CallIds
from llm_proxy.census import LEFT
from llm_proxy.errors import Kind, ProxyError, failed_inside
from llm_proxy.exchange import Exchange
from llm_proxy.http.asgi import App, Receive, Scope, Send, respond
from llm_proxy.http.body import ClientGone, read_body
from llm_proxy.http.sinks import BodySink, RawSink, StreamSink, respond_error
from llm_proxy.http.watch import Watch
from llm_proxy.identity.headers import Headers, checked_id, read_hints
from llm_proxy.judge import refuse_unjudged
from llm_proxy.logs import about
from llm_proxy.pipeline import Pipeline
from llm_proxy.records.ids import uuid7
from llm_proxy.resolving import unknown_response
from llm_proxy.services import Services
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES
from llm_proxy.wire.anthropic_messages import errors as anthropic
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_chat import errors as openai
from llm_proxy.wire.openai_responses import OPENAI_RESPONSES
from llm_proxy.wire.passthrough import (
    PASSTHROUGH,
    checked_path,
    is_administrative,
    is_model_path,
    parse_request,
    units,
)
from llm_proxy.wire.request import WireRequest

_SERVED = ", ".join(
    [*(f"POST {dialect.path}" for dialect in DIALECTS.values() if dialect.path), "GET /v1/models"]
)

Prepare = Callable[[Exchange, Scope, Receive], Awaitable[None]]
"""Identifies the caller, reads the body and parses it into the exchange."""
AnySink = BodySink | StreamSink | RawSink

log = structlog.get_logger("llm_proxy.http")


class ModelApi:
    """The endpoints that agents call."""

    def __init__(self, services: Services, created: int) -> None:
        self._services = services
        self._pipeline = Pipeline(services)
        self._created = created

    def endpoint(self, dialect: Dialect) -> App:
        """The ASGI endpoint that serves `dialect`."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            await self._call(dialect, self._prepare, scope, receive, send)

        return serve

    async def stored(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /v1/responses/{id}`: a response that its provider keeps, judged as if it came now."""
        await self._call(OPENAI_RESPONSES, self._prepare_stored, scope, receive, send)

    async def other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Any other path under `/v1/`: it passes through, under the same identity, budgets and record."""
        await self._call(PASSTHROUGH, self._prepare_other, scope, receive, send)

    async def _call(
        self, dialect: Dialect, prepare: Prepare, scope: Scope, receive: Receive, send: Send
    ) -> None:
        services = self._services
        now = services.now_us()
        exchange = Exchange(id=uuid7(now), started_us=now, dialect=dialect, clock0=time.perf_counter())
        services.metrics.call_started()
        services.census.arrived()
        ids = CallIds(exchange)
        about.set(ids)
        refused: ProxyError | None = None
        sink: AnySink = RawSink(exchange, send) if dialect.raw else BodySink(exchange, send)
        try:
            exchange.query = checked_query(scope["query_string"])
            await prepare(exchange, scope, receive)
            assert exchange.request is not None
            if exchange.request.stream and not dialect.raw:
                sink = StreamSink(exchange, send)
            async with Watch(exchange, receive):
                await self._pipeline.run(exchange, sink)
        except ProxyError as error:
            refused = await self._recorded(exchange, error)
            await sink.fail(refused)
        except ClientGone:
            return
        except Exception as error:
            log.error("a call failed inside the proxy", exc_info=error)
            refused = await self._recorded(exchange, failed_inside())
            await sink.fail(refused)
        finally:
            self._account(exchange, refused)
            ids.end()
            services.bodies.leave(len(exchange.body))
            services.standing.leave(exchange)
            services.metrics.call_ended()
            refused = None  # its traceback leads here: the call would wait for the gc

    async def _prepare(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        """Everything up to a parsed request: a refusal here is recorded with what is known by then."""
        services, dialect = self._services, exchange.dialect
        headers: Headers = dict(scope["headers"])
        exchange.caller = await services.access.identify(headers)
        if not dialect.passes.isdisjoint(headers):
            exchange.passed = passed_on(scope["headers"], dialect.passes)
        self._identify_run(exchange, headers)
        exchange.body = await read_body(receive, headers, services.max_body, services.bodies)
        exchange.request = request = dialect.parse(exchange.body)
        self._settle_run(exchange, request)

    async def _prepare_stored(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        services = self._services
        headers: Headers = dict(scope["headers"])
        exchange.caller = caller = await services.access.identify(headers)
        self._identify_run(exchange, headers)
        id_ = scope["path"].rpartition("/")[2]
        stored = exchange.stored = await services.stored(caller.agent.id, id_)
        if stored is None:
            raise unknown_response(id_)
        exchange.method, exchange.upstream_path, exchange.fetches = "GET", f"/responses/{id_}", True
        streams = "stream=true" in exchange.query.split("&")
        exchange.request = request = WireRequest(
            body=b"", model=stored.model, stream=streams, spans={}, max_output=0, include_usage=True
        )
        self._settle_run(exchange, request)

    def _identify_run(self, exchange: Exchange, headers: Headers) -> None:
        """What credential and headers say of the run and the user."""
        caller = exchange.caller
        assert caller is not None
        exchange.hints = hints = read_hints(headers)
        exchange.run_id = caller.run_id or hints.run_id
        exchange.parent_run_id = hints.parent_run_id
        exchange.user_id = caller.user_id or hints.user_id
        exchange.user_verified = bool(caller.user_id)
        self._services.standing.enter(exchange)

    def _settle_run(self, exchange: Exchange, request: WireRequest) -> None:
        """The run and the user at last: as the body names them where nothing else did."""
        caller = exchange.caller
        assert caller is not None
        if not exchange.run_id:
            exchange.run_id = checked_id(request.run, "metadata.run_id")
        if not exchange.user_id:
            exchange.user_id = checked_id(request.user, "user")
        if not exchange.run_id:
            if caller.agent.require_run:
                raise ProxyError(
                    Kind.RUN_REQUIRED,
                    f"Agent {caller.agent.id!r} must name its run: send the header `x-run-id`.",
                    param="x-run-id",
                    retryable=False,
                )
            exchange.run_id = exchange.id
            exchange.run_inferred = True

    def _account(self, exchange: Exchange, refused: ProxyError | None) -> None:
        census = self._services.census
        if exchange.opened or exchange.refusal_kept:
            census.recorded()
        elif refused is not None:
            census.failed(refused)
        else:
            census.refused(LEFT)

    async def _recorded(self, exchange: Exchange, error: ProxyError) -> ProxyError:
        """What the caller is told: `error`, or why that could not be recorded."""
        if not exchange.opened and not exchange.run_id:
            exchange.run_id, exchange.run_inferred = exchange.id, True
        try:
            await self._pipeline.refuse(exchange, error)
        except ProxyError as worse:
            return worse
        return error

    async def models(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /v1/models` and `GET /v1/models/{id}`: the models that this caller may use, in its dialect."""
        services = self._services
        headers: Headers = dict(scope["headers"])
        dialect, told = (
            (ANTHROPIC_MESSAGES, anthropic) if b"anthropic-version" in headers else (OPENAI_CHAT, openai)
        )
        now = services.now_us()
        exchange = Exchange(id=uuid7(now), started_us=now, dialect=dialect, clock0=time.perf_counter())
        services.census.arrived()
        refused: ProxyError | None = None
        try:
            caller = await services.access.identify(headers)
            services.standing.check(caller)
            names = [n for n in services.routes.names() if "*" not in n and n in caller.agent.models]
            wanted = str(scope["path"]).removeprefix("/v1/models").lstrip("/")
            if not wanted:
                body = told.models_body(names, self._created)
            elif wanted in names:
                body = told.model_body(wanted, self._created)
            else:
                raise ProxyError(
                    Kind.MODEL_NOT_FOUND,
                    f"No model {wanted[:200]!r} is here for you. `GET /v1/models` lists those you may use.",
                    retryable=False,
                )
        except ProxyError as error:
            refused = error
            await respond_error(exchange, send, error)
            return
        finally:
            services.census.without_call(refused)
        await respond(send, 200, [(b"content-type", b"application/json")], body)

    async def _prepare_other(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        services = self._services
        headers: Headers = dict(scope["headers"])
        exchange.caller = await services.access.identify(headers)
        self._identify_run(exchange, headers)
        exchange.method = scope["method"]
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        path = exchange.upstream_path = checked_path(raw_path.partition(b"?")[0].decode("latin-1"))
        if is_model_path(path) or is_administrative(path):
            raise ProxyError(
                Kind.UNSUPPORTED_FEATURE,
                f"{exchange.method} /v1{path} is not served. Served: {_SERVED}.",
                status=404,
                retryable=False,
            )
        refuse_unjudged(exchange, services.rules)
        exchange.passed = passed_on(scope["headers"], PASSTHROUGH.passes | _DESCRIBING)
        content_type = exchange.passed.get("content-type", "")  # what is read is what is sent
        exchange.body = await read_body(receive, headers, services.max_body, services.bodies)
        request = parse_request(exchange.method, path, content_type, exchange.body)
        exchange.unnamed = not request.model
        if exchange.unnamed:
            request = structs.replace(request, model=self._default_model())
        exchange.request = request
        exchange.units = units(path, exchange.body, content_type)
        self._settle_run(exchange, request)

    def _default_model(self) -> str:
        model = self._services.default_model
        if model is None:
            raise ProxyError(
                Kind.MODEL_NOT_FOUND,
                "The request names no model, and no default is set: name one in the body, or have an "
                "operator set `default_model` in the configuration.",
                param="model",
                retryable=False,
            )
        return model


_MAX_QUERY = 2_048
_DESCRIBING = frozenset({b"content-type", b"accept", b"range", b"idempotency-key"})
"""Headers that say what a body is and which reply is wanted."""


def checked_query(query: bytes) -> str:
    """A query that may go upstream as it is, since it is printable ASCII without a fragment."""
    if not query:
        return ""
    text = query.decode("latin-1")
    if len(query) > _MAX_QUERY or not (text.isascii() and text.isprintable()) or set(' #"<>') & set(text):
        raise ProxyError(
            Kind.INVALID_REQUEST,
            f"The query of the request's address is over {_MAX_QUERY} bytes or holds characters that have to "
            "be percent-encoded: send it shorter, or encoded.",
            retryable=False,
        )
    return text


def passed_on(headers: Iterable[tuple[bytes, bytes]], names: AbstractSet[bytes]) -> dict[str, str]:
    """Those of the headers, by lower-case name; of one that stands several times all values, in a list."""
    found: dict[str, str] = {}
    for name, raw in headers:
        value = raw.decode("latin-1")
        if name in names and value.isprintable():
            key = name.decode()
            found[key] = f"{found[key]}, {value}" if key in found else value
    return found
