"""The model routes as raw ASGI endpoints: identify, read, parse, and hand over to the pipeline."""

from __future__ import annotations

import time

import structlog

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.http.asgi import App, Receive, Scope, Send, respond
from llm_proxy.http.body import ClientGone, read_body
from llm_proxy.http.sinks import BodySink, StreamSink, respond_error
from llm_proxy.http.watch import Watch
from llm_proxy.identity.headers import Headers, checked_id, read_hints
from llm_proxy.pipeline import Pipeline
from llm_proxy.records.ids import uuid7
from llm_proxy.services import Services
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_chat.errors import model_body, models_body

_SERVED = ", ".join([*(f"POST {dialect.path}" for dialect in DIALECTS.values()), "GET /v1/models"])

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
            await self._serve(dialect, scope, receive, send)

        return serve

    async def _serve(self, dialect: Dialect, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        now = services.now_us()
        exchange = Exchange(id=uuid7(now), started_us=now, dialect=dialect, clock0=time.perf_counter())
        services.metrics.call_started()
        sink: BodySink | StreamSink = BodySink(exchange, send)
        try:
            await self._prepare(exchange, dict(scope["headers"]), receive)
            assert exchange.request is not None
            if exchange.request.stream:
                sink = StreamSink(exchange, send)
            async with Watch(exchange, receive):
                await self._pipeline.run(exchange, sink)
        except ProxyError as error:
            await self._refuse(exchange, sink, error)
        except ClientGone:
            return
        except Exception as error:
            log.error("a call failed inside the proxy", call_id=exchange.id, exc_info=error)
            await self._refuse(exchange, sink, _internal())
        finally:
            services.metrics.call_ended()

    async def _prepare(self, exchange: Exchange, headers: Headers, receive: Receive) -> None:
        """Everything up to a parsed request: a refusal here is recorded with what is known by then."""
        services = self._services
        exchange.caller = caller = await services.access.identify(headers)
        exchange.hints = hints = read_hints(headers)
        exchange.run_id = caller.run_id or hints.run_id
        exchange.parent_run_id = hints.parent_run_id
        exchange.user_id = hints.user_id
        exchange.body = await read_body(receive, headers, services.max_body)
        exchange.request = request = exchange.dialect.parse(exchange.body)
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

    async def _refuse(self, exchange: Exchange, sink: BodySink | StreamSink, error: ProxyError) -> None:
        if not exchange.opened and not exchange.run_id:
            exchange.run_id, exchange.run_inferred = exchange.id, True
        try:
            await self._pipeline.refuse(exchange, error)
        except ProxyError as worse:
            error = worse
        await sink.fail(error)

    async def models(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /v1/models` and `GET /v1/models/{id}`: the models that this caller may use."""
        services = self._services
        dialect = OPENAI_CHAT
        now = services.now_us()
        exchange = Exchange(id=uuid7(now), started_us=now, dialect=dialect, clock0=time.perf_counter())
        try:
            caller = await services.access.identify(dict(scope["headers"]))
            names = [n for n in services.routes.names() if "*" not in n and n in caller.agent.models]
            wanted = str(scope["path"]).removeprefix("/v1/models").lstrip("/")
            if not wanted:
                body = models_body(names, self._created)
            elif wanted in names:
                body = model_body(wanted, self._created)
            else:
                raise ProxyError(
                    Kind.MODEL_NOT_FOUND,
                    f"No model {wanted[:200]!r} is here for you. `GET /v1/models` lists those you may use.",
                    retryable=False,
                )
        except ProxyError as error:
            await respond_error(exchange, send, error)
            return
        await respond(send, 200, [(b"content-type", b"application/json")], body)

    async def unserved(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Any other path under `/v1/`."""
        now = self._services.now_us()
        exchange = Exchange(id=uuid7(now), started_us=now, dialect=OPENAI_CHAT, clock0=time.perf_counter())
        try:
            exchange.caller = await self._services.access.identify(dict(scope["headers"]))
            raise ProxyError(
                Kind.UNSUPPORTED_FEATURE,
                f"{scope['method']} {scope['path'][:200]} is not served by this version. Served: {_SERVED}.",
                status=404,
                retryable=False,
            )
        except ProxyError as error:
            await self._refuse(exchange, BodySink(exchange, send), error)


def _internal() -> ProxyError:
    return ProxyError(
        Kind.UPSTREAM_FAILED,
        "The proxy failed inside; the call id in `x-call-id` finds it in the log.",
        status=500,
    )
