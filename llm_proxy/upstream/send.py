"""Drives a call's plan over the providers: one target after another until one of them answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from time import monotonic

import msgspec
import structlog

from llm_proxy.chat.reply import Assembly
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.flow import Flow, Sink
from llm_proxy.outgoing import Outgoing, spoken
from llm_proxy.rawflow import RawFlow, RawSink
from llm_proxy.records.view import Attempt
from llm_proxy.seals import refused
from llm_proxy.upstream.clocks import Clocks
from llm_proxy.upstream.provider import Endpoint, Provider, Sending, UpstreamFailure
from routing.failures import MEANING, Charge, FailureKind
from routing.plan import Exhausted, Failed, Plan, Stop, Succeeded, Try

PASSED_ON = frozenset({400, 413, 422})
"""Statuses of an upstream that are the caller's to hear, body and all."""
_RETRIEVAL = frozenset({404, 405, 409, 410, 415, 416})
"""Statuses that are the caller's too where it names a thing of its own: a file, a stored response."""

log = structlog.get_logger("llm_proxy.upstream")


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Providers by name, and endpoints by target key.

    `absent` holds the dialects that an endpoint turned out not to serve, by target key.
    """

    providers: Mapping[str, Provider]
    endpoints: Mapping[str, Endpoint]
    absent: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    async def close(self) -> None:
        for provider in {id(provider): provider for provider in self.providers.values()}.values():
            await provider.close()


@dataclass(frozen=True, slots=True)
class LostTry:
    """An attempt that failed and may have cost something, and what came of its reply."""

    assembly: Assembly
    charge: Charge
    provider: str
    model: str


AnyFlow = Flow | RawFlow

Compose = Callable[[Try, Endpoint, AbstractSet[str]], Outgoing]
"""The request for a try's target at its endpoint, which lacks these dialects."""


async def send(
    exchange: Exchange,
    sink: Sink | RawSink,
    plan: Plan,
    upstreams: Upstreams,
    compose: Compose,
    new_flow: Callable[[Outgoing], AnyFlow],
    lost: list[LostTry],
) -> bytes:
    """Sends the call until a target answers whole; returns the tail that waits for the record's commit.

    Attempts that failed and may have cost something are added to `lost`. Raises ProxyError when no target
    answered.
    """
    failure: UpstreamFailure | None = None
    while True:
        step = plan.next(monotonic())
        match step:
            case Exhausted():
                raise _answer(exchange, step, failure)
            case Try():
                if step.delay_s > 0:
                    await _pause(exchange, step.delay_s)
                try:
                    outcome, flow = await _try(exchange, step, upstreams, compose, new_flow)
                except BaseException as error:
                    plan.report(_given_up(error, sink), monotonic())
                    raise
                if isinstance(outcome, bytes):
                    plan.report(Succeeded(), monotonic())
                    return outcome
                failure = outcome
                charge = MEANING[failure.kind].charge
                if charge is not Charge.NEVER and not sink.started:
                    lost.append(LostTry(flow.assembly, charge, step.target.provider, step.target.model))
                plan.report(Failed(failure.kind, failure.retry_after_s, sink.started), monotonic())


async def _try(
    exchange: Exchange,
    step: Try,
    upstreams: Upstreams,
    compose: Compose,
    new_flow: Callable[[Outgoing], AnyFlow],
) -> tuple[bytes | UpstreamFailure, AnyFlow]:
    """One try, in a dialect that the target serves: where one turns out to be missing, in the next."""
    endpoint = upstreams.endpoints[step.target.key]
    absent = upstreams.absent.setdefault(endpoint.target_id, set())
    while True:
        outgoing = compose(step, endpoint, absent)
        flow = new_flow(outgoing)
        outcome = await _attempt(exchange, step, upstreams, endpoint, outgoing, flow)
        if _sealed_shut(exchange, outcome):
            exchange.unsealed = True
            continue
        dialect = outgoing.dialect.name
        if isinstance(outcome, bytes) or dialect not in endpoint.maybe or not _lacks_path(outcome):
            return outcome, flow
        absent.add(dialect)
        log.info("a target does not serve a dialect", target=endpoint.target_id, dialect=dialect)
        if spoken(exchange.dialect, endpoint, absent) is None:
            return outcome, flow


def _sealed_shut(exchange: Exchange, outcome: bytes | UpstreamFailure) -> bool:
    """Whether the target refused a seal that it can't open, for the first time in this call."""
    if exchange.unsealed or isinstance(outcome, bytes) or outcome.status != 400:
        return False
    return refused(outcome.body or b"")


_NO_SUCH_PATH = frozenset({404, 405, 501})


def _lacks_path(failure: UpstreamFailure) -> bool:
    """Whether the server knows no such path, and not just no such model."""
    return failure.status in _NO_SUCH_PATH and b"model" not in (failure.body or b"").lower()


def _given_up(error: BaseException, sink: Sink | RawSink) -> Succeeded | Failed:
    """What a try that the proxy itself ended says of its target: a refusal of ours is not its fault."""
    if isinstance(error, ProxyError):
        return Succeeded()
    return Failed(FailureKind.CLIENT_GONE, released=sink.started)


async def _pause(exchange: Exchange, seconds: float) -> None:
    before = exchange.elapsed()
    await asyncio.sleep(seconds)
    exchange.upstream_s += exchange.elapsed() - before


async def _attempt(
    exchange: Exchange, step: Try, upstreams: Upstreams, endpoint: Endpoint, outgoing: Outgoing, flow: AnyFlow
) -> bytes | UpstreamFailure:
    """One request to one target: the tail of its reply, or how it failed."""
    _adopt(exchange, step, endpoint, outgoing, flow)
    began = exchange.elapsed()
    first: float | None = None
    status: int | None = None
    failed: UpstreamFailure | None = None
    tail = b""
    watch = Clocks(step)
    try:
        with watch:
            provider = upstreams.providers[endpoint.provider]
            sending = _traced(exchange, outgoing.sending)
            async with provider.open(endpoint, sending, step.timeouts.connect_s) as reply:
                status = reply.status
                exchange.reached_upstream = True
                exchange.reply_headers = _passing(reply.headers)
                if reply.dropped:
                    exchange.dropped += reply.dropped
                flow.begin(reply)
                while chunk := await watch.read(reply):
                    if first is None:
                        first = exchange.elapsed()
                        exchange.upstream_s += first - began
                        exchange.first_event_s = exchange.first_event_s or round(first, 6)
                    await flow.feed(chunk)
                    if flow.ended:
                        break
                    watch.waiting()
            watch.suspend()
            tail = await flow.end()
    except UpstreamFailure as failure:
        failed = failure
    except TimeoutError:
        failed = watch.timeout(first is not None)
    except ProxyError:
        _note(exchange, step, began, first, status, None, "")
        raise
    except asyncio.CancelledError:
        exchange.reached_upstream = True  # for all that is known here
        _note(exchange, step, began, first, status, FailureKind.CLIENT_GONE, "the call was cancelled")
        raise
    if failed is None:
        _note(exchange, step, began, first, status, None, "")
        return tail
    if first is None:
        exchange.upstream_s += exchange.elapsed() - began
    if failed.status is not None or failed.kind in _AFTER_CONNECT:
        exchange.reached_upstream = True
    _note(exchange, step, began, first, failed.status or status, failed.kind, failed.detail)
    return failed


_AFTER_CONNECT = frozenset(
    {
        FailureKind.FIRST_EVENT_TIMEOUT,
        FailureKind.IDLE_TIMEOUT,
        FailureKind.TOTAL_TIMEOUT,
        FailureKind.CUT,
        FailureKind.TRUNCATED,
        FailureKind.MALFORMED,
    }
)


def _adopt(exchange: Exchange, step: Try, endpoint: Endpoint, outgoing: Outgoing, flow: AnyFlow) -> None:
    exchange.target = step.target.id
    exchange.provider = step.target.provider
    exchange.served_model = step.target.model
    exchange.server = endpoint.address
    exchange.upstream = outgoing.dialect
    exchange.edits = outgoing.edits
    exchange.sent = outgoing.sending.body if outgoing.rewritten else None
    exchange.dropped = outgoing.dropped
    exchange.assembly = flow.assembly
    exchange.emitted = flow.emitted


def _traced(exchange: Exchange, sending: Sending) -> Sending:
    traceparent = exchange.hints.traceparent
    if not traceparent:
        return sending
    return replace(sending, headers={**sending.headers, "traceparent": traceparent})


_PASSED_BACK = ("x-request-id", "request-id", "openai-processing-ms", "openai-version")


def _passing(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """Headers by which a vendor's support finds a call."""
    found = [(name, headers.get(name)) for name in _PASSED_BACK]
    return tuple([(name.encode(), value.encode("latin-1", "replace")) for name, value in found if value])


def _note(
    exchange: Exchange,
    step: Try,
    began: float,
    first: float | None,
    status: int | None,
    kind: FailureKind | None,
    detail: str,
) -> None:
    exchange.attempts.append(
        Attempt(
            target=step.target.id,
            provider=step.target.provider,
            model=step.target.model,
            started_s=round(began, 6),
            ended_s=round(exchange.elapsed(), 6),
            first_event_s=None if first is None else round(first, 6),
            status=status,
            failure=kind.value if kind else "",
            detail=detail,
        )
    )


def _answer(exchange: Exchange, step: Exhausted, failure: UpstreamFailure | None) -> ProxyError:
    """What the caller is told when no target answered."""
    name = exchange.request.model if exchange.request else ""
    if failure is None or step.stop is Stop.OPEN:
        return ProxyError(
            Kind.UPSTREAM_UNAVAILABLE,
            f"Every target of model {name!r} is resting after failures. Try again later.",
            retry_after_s=step.retry_after_s or 1.0,
        )
    where = f"target {exchange.target!r} of model {name!r}"
    if _is_the_callers(exchange, failure):
        return _refused(exchange, failure, where)
    tried = f"after {len(exchange.attempts)} attempt{'s' if len(exchange.attempts) != 1 else ''}"
    message = (
        f"No target of model {name!r} answered {tried}; the last, {exchange.target!r}: {failure.detail}."
    )
    match failure.kind:
        case FailureKind.FIRST_EVENT_TIMEOUT | FailureKind.IDLE_TIMEOUT | FailureKind.TOTAL_TIMEOUT:
            return ProxyError(Kind.UPSTREAM_TIMEOUT, message)
        case FailureKind.RATE_LIMITED | FailureKind.OVERLOADED:
            return ProxyError(
                Kind.UPSTREAM_UNAVAILABLE,
                message,
                retry_after_s=failure.retry_after_s or step.retry_after_s or 1,
            )
        case _:
            return ProxyError(Kind.UPSTREAM_FAILED, message, retry_after_s=step.retry_after_s)


def _is_the_callers(exchange: Exchange, failure: UpstreamFailure) -> bool:
    if exchange.upstream_path and failure.status in _RETRIEVAL:
        return True
    return failure.status in PASSED_ON and not MEANING[failure.kind].fall_back


class _Words(msgspec.Struct):
    message: str = ""


class _Told(msgspec.Struct):
    error: _Words | str | None = None


_told = msgspec.json.Decoder(_Told).decode


def _refused(exchange: Exchange, failure: UpstreamFailure, where: str) -> ProxyError:
    """The upstream's own refusal: its body where the caller reads that dialect, else what it says."""
    body = failure.body if exchange.upstream is exchange.dialect else None
    message = f"The {where} refused the request with status {failure.status}"
    words = "" if body is not None else _message(failure.body or b"")
    return ProxyError(
        Kind.INVALID_REQUEST,
        f"{message}: {words}" if words else f"{message}.",
        status=failure.status or 0,
        body=body,
        retryable=False,
    )


def _message(body: bytes) -> str:
    try:
        error = _told(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return (error.message if isinstance(error, _Words) else error or "")[:2000]
