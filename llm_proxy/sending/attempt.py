"""One try at one target, in a dialect that it serves: sent, read to its end, and noted on the record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Protocol

import structlog

from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.flow import Flow, Sink
from llm_proxy.outgoing import Outgoing, spoken
from llm_proxy.rawflow import RawFlow, RawSink
from llm_proxy.records.view import Attempt
from llm_proxy.seals import refused
from llm_proxy.upstream.clocks import Clocks
from llm_proxy.upstream.provider import Endpoint, Sending, UpstreamFailure, UpstreamReply, Upstreams
from routing.failures import FailureKind
from routing.plan import Try

log = structlog.get_logger("llm_proxy.upstream")

AnySink = Sink | RawSink
AnyFlow = Flow | RawFlow
Compose = Callable[[Try, Endpoint, AbstractSet[str]], Outgoing]
"""The request for a try's target at its endpoint, which lacks these dialects."""
NewFlow = Callable[[Outgoing, AnySink], AnyFlow]
"""What carries one attempt's reply into a sink."""


class Watching(Protocol):
    """Who is told how an attempt gets on."""

    def shows(self, attempt: Attempting) -> None:
        """There is more to say of the upstream: its request is composed, or its reply's head has come."""
        ...

    def heard(self, attempt: Attempting) -> None:
        """Its first bytes have come."""
        ...

    def answers(self, attempt: Attempting) -> None:
        """Its reply has come whole, or its first words have, which are about to be released."""
        ...


class _Nobody:
    """Watches what has ended."""

    def shows(self, attempt: Attempting) -> None: ...

    def heard(self, attempt: Attempting) -> None: ...

    def answers(self, attempt: Attempting) -> None: ...


_NOBODY = _Nobody()


class Attempting:
    """One try. `run` it once; what it sent and read so far is in `outgoing` and `flow`."""

    def __init__(
        self,
        exchange: Exchange,
        step: Try,
        upstreams: Upstreams,
        sink: AnySink,
        compose: Compose,
        new_flow: NewFlow,
        watching: Watching,
    ) -> None:
        self._exchange = exchange
        self._upstreams = upstreams
        self._sink = sink
        self._compose = compose
        self._new_flow = new_flow
        self._watching: Watching = watching
        self._first: float | None = None
        self._began = 0.0
        self._status: int | None = None
        self._headers: tuple[tuple[bytes, bytes], ...] = ()
        self._dropped: tuple[str, ...] = ()
        self.step = step
        self.sent = False
        """Whether anything may have reached the target; only then there is a `flow`."""
        self.superseded = False
        """Another try, at the same time, answered first."""
        self.noted: Attempt | None = None
        """How it ended, as it stands on the record."""
        self.endpoint = upstreams.endpoints[step.target.lanes[step.api_key]]
        self.outgoing: Outgoing
        self.flow: AnyFlow

    async def run(self) -> bytes | UpstreamFailure:
        """The tail of the reply, or how it failed. Where a dialect isn't served there, the next is used."""
        try:
            return await self._run()
        finally:
            # Who watches holds the attempt: the two would keep the call's bodies until garbage is collected.
            self._watching = _NOBODY

    async def _run(self) -> bytes | UpstreamFailure:
        endpoint, exchange = self.endpoint, self._exchange
        absent = self._upstreams.absent.setdefault(endpoint.target_id, set())
        while True:
            self.outgoing = self._compose(self.step, endpoint, absent)
            self.flow = self._new_flow(self.outgoing, self._sink)
            self.sent = True
            self._dropped = self.outgoing.dropped
            self._watching.shows(self)
            outcome = await self._once()
            if _sealed_shut(exchange, outcome):
                exchange.unsealed = True
                continue
            dialect = self.outgoing.dialect.name
            if isinstance(outcome, bytes) or dialect not in endpoint.maybe or not _lacks_path(outcome):
                return outcome
            absent.add(dialect)
            log.info("a target does not serve a dialect", target=endpoint.target_id, dialect=dialect)
            if spoken(exchange.dialect, endpoint, absent) is None:
                return outcome

    def adopt(self) -> None:
        """What the exchange says of the upstream is from now on about this attempt."""
        exchange, step, outgoing, flow = self._exchange, self.step, self.outgoing, self.flow
        exchange.target = step.target.id
        exchange.provider = step.target.provider
        exchange.served_model = step.target.model
        exchange.server = self.endpoint.address
        exchange.upstream = outgoing.dialect
        exchange.edits = outgoing.edits
        exchange.sent = outgoing.sending.body if outgoing.rewritten else None
        exchange.dropped = self._dropped
        exchange.reply_headers = self._headers
        exchange.resumed = outgoing.resumes
        exchange.assembly = flow.assembly
        exchange.emitted = flow.emitted

    def stays_silent(self) -> None:
        """Counts what was waited so far as the upstream's time."""
        if self.sent:
            self._exchange.waited(self._began, self._exchange.elapsed())

    async def _once(self) -> bytes | UpstreamFailure:
        exchange = self._exchange
        self._began, self._first, self._status = exchange.elapsed(), None, None
        clocks = Clocks(self.step)
        try:
            await self._arrive(clocks)
            self._watching.answers(self)
            tail = await self.flow.end()
        except UpstreamFailure as failure:
            return self._failed(failure)
        except TimeoutError:
            return self._failed(clocks.timeout(self._first is not None))
        except ProxyError:
            self._note(None, "")
            raise
        except asyncio.CancelledError:
            exchange.reached_upstream = True  # for all that is known here
            if self.superseded:
                self._note(FailureKind.SUPERSEDED, "another target answered first")
            else:
                self._note(FailureKind.CLIENT_GONE, "the call was cancelled")
            raise
        self._note(None, "")
        return tail

    async def _arrive(self, clocks: Clocks) -> None:
        """Reads the reply to its end, which one that could go on elsewhere has come to with its last word."""
        try:
            with clocks:
                await self._read(clocks)
        except (UpstreamFailure, TimeoutError):
            if not self.flow.said_all:
                raise
        else:
            clocks.suspend()
            self.flow.arrived()

    async def _read(self, clocks: Clocks) -> None:
        provider = self._upstreams.providers[self.endpoint.provider]
        sending = _traced(self._exchange, self.outgoing.sending)
        async with provider.open(self.endpoint, sending, self.step.timeouts.connect_s) as reply:
            self._begin(reply)
            while chunk := await clocks.read(reply):
                if self._first is None:
                    self._hear()
                await self.flow.feed(chunk)
                if self.flow.ended:
                    break
                clocks.waiting()

    def _begin(self, reply: UpstreamReply) -> None:
        self._exchange.reached_upstream = True
        self._status = reply.status
        self._headers = _passing(reply.headers)
        self._dropped += reply.dropped
        self._watching.shows(self)
        self.flow.begin(reply)

    def _hear(self) -> None:
        exchange = self._exchange
        first = self._first = exchange.elapsed()
        exchange.waited(self._began, first)
        exchange.first_event_s = exchange.first_event_s or round(first, 6)
        self._watching.heard(self)

    def _failed(self, failure: UpstreamFailure) -> UpstreamFailure:
        exchange = self._exchange
        if self._first is None:
            exchange.waited(self._began, exchange.elapsed())
        if failure.status is not None or failure.kind in _AFTER_CONNECT:
            exchange.reached_upstream = True
        self._status = failure.status or self._status
        self._note(failure.kind, failure.detail)
        return failure

    def _note(self, kind: FailureKind | None, detail: str) -> None:
        target = self.step.target
        self.noted = Attempt(
            target=target.id,
            provider=target.provider,
            model=target.model,
            api_key=self.step.api_key + 1 if len(target.lanes) > 1 else 0,
            started_s=round(self._began, 6),
            ended_s=round(self._exchange.elapsed(), 6),
            first_event_s=None if self._first is None else round(self._first, 6),
            status=self._status,
            resumed=self.outgoing.resumes is not None,
            replan=len(self._exchange.rounds),
            failure=kind.value if kind else "",
            detail=detail,
        )
        self._exchange.attempts.append(self.noted)


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
_NO_SUCH_PATH = frozenset({404, 405, 501})
_PASSED_BACK = ("x-request-id", "request-id", "openai-processing-ms", "openai-version")


def _sealed_shut(exchange: Exchange, outcome: bytes | UpstreamFailure) -> bool:
    """Whether the target refused a seal that it can't open, for the first time in this call."""
    if exchange.unsealed or isinstance(outcome, bytes) or outcome.status != 400:
        return False
    return refused(outcome.body or b"")


def _lacks_path(failure: UpstreamFailure) -> bool:
    """Whether the server knows no such path, and not just no such model."""
    return failure.status in _NO_SUCH_PATH and b"model" not in (failure.body or b"").lower()


def _traced(exchange: Exchange, sending: Sending) -> Sending:
    traceparent = exchange.hints.traceparent
    if not traceparent:
        return sending
    return replace(sending, headers={**sending.headers, "traceparent": traceparent})


def _passing(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """Headers by which a vendor's support finds a call."""
    found = [(name, headers.get(name)) for name in _PASSED_BACK]
    return tuple([(name.encode(), value.encode("latin-1", "replace")) for name, value in found if value])
