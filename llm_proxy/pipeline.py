"""The stages of one call, in order: admit, inspect, send, gate, settle, record. Refusals are recorded too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import monotonic

from budgets import Late, Settle
from llm_proxy import journal
from llm_proxy.admission import Admitted
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.flow import Flow, Sink
from llm_proxy.judge import Judge, Rules
from llm_proxy.quote import counts_tokens
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.view import Problem, Status
from llm_proxy.services import Services
from llm_proxy.settle import amount, total
from llm_proxy.upstream.send import LostTry, send
from llm_proxy.wire.spans import splice
from routing.failures import FailureKind
from routing.plan import Plan
from routing.targets import Resolved


class Pipeline:
    """Carries calls. One per worker; every call gets an `Exchange` of its own."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def run(self, exchange: Exchange, sink: Sink) -> None:
        """One call whose request is parsed, from its admission to its last byte.

        Raises `ProxyError` where it was refused or failed; what happened is committed by then.
        """
        services = self._services
        rules = services.rules
        exchange.policy = rules.sha256 if rules else ""
        route = self._route(exchange)
        services.admission.bind(exchange)
        request = exchange.request
        assert request is not None
        exchange.intake = await services.reader.read(
            request, exchange.dialect, count=counts_tokens(exchange.bounds)
        )
        services.active[exchange.id] = exchange.started_us
        try:
            admitted = await services.admission.admit(exchange, route, rules)
        except ProxyError:
            services.active.pop(exchange.id, None)
            raise
        except asyncio.CancelledError as error:
            # What was submitted is written all the same: if it opened the call, the call ends here.
            await _through(self._failed(exchange, sink, error))
            raise
        try:
            tail = await self._carry(exchange, sink, route, rules, admitted)
            spent = await services.settler.finished(exchange)
        except BaseException as error:
            await _through(self._failed(exchange, sink, error))
            raise
        exchange.status = Status.OK
        exchange.spent = total(spent, exchange.lost)
        await self._close_then(exchange, sink, tail)

    def _route(self, exchange: Exchange) -> Resolved:
        caller, request = exchange.caller, exchange.request
        assert caller is not None
        assert request is not None
        route = self._services.routes.resolve(request.model)
        if route is None:
            raise ProxyError(
                Kind.MODEL_NOT_FOUND,
                f"No model {request.model[:200]!r} is configured. `GET /v1/models` lists those you may use.",
                param="model",
                retryable=False,
            )
        if request.model not in caller.agent.models:
            raise ProxyError(
                Kind.MODEL_NOT_ALLOWED,
                f"Agent {caller.agent.id!r} may not use model {request.model!r}. "
                "`GET /v1/models` lists those it may; an operator adds others under the agent's `models`.",
                param="model",
                retryable=False,
            )
        return route

    async def _carry(
        self, exchange: Exchange, sink: Sink, route: Resolved, rules: Rules | None, admitted: Admitted
    ) -> bytes:
        services = self._services
        if admitted.rejected:
            raise ProxyError(
                Kind.POLICY_DENIED,
                f"The request holds a result for tool call {admitted.rejected[:80]!r}, which was never "
                "released to the run (unknown_results: reject). Send results of released calls only.",
                retryable=False,
            )
        request = exchange.request
        assert request is not None
        judge = Judge(exchange, rules, admitted.state, services.writer, services.now_us, services.environment)
        judging = rules is not None or any(bound.limit.gate_caps for bound in exchange.bounds)
        flows: list[Flow] = []

        def new_flow() -> Flow:
            flow = Flow(
                exchange,
                sink,
                judge,
                judging=judging,
                choices=request.n,
                hide_usage=request.stream and not request.include_usage,
            )
            flows[:] = [flow]
            return flow

        lost: list[LostTry] = []

        def body_for(model: str) -> bytes:
            dialect = exchange.dialect
            cap = None if admitted.cap is None else (dialect.cap_field, admitted.cap)
            edits = dialect.upstream_edits(request, model, cap, ask_usage=request.stream)
            exchange.edits = tuple(edits)
            return splice(request.body, edits) if edits else request.body

        plan = Plan(route.chain, services.health, now=monotonic(), random=services.random)
        try:
            tail = await send(exchange, sink, plan, services.upstreams, body_for, new_flow, lost)
        finally:
            for attempt in lost:
                exchange.lost.append(await services.settler.lost(exchange, attempt))
            if flows:
                exchange.released = flows[0].released(b"")
        exchange.released = flows[0].released(tail)
        return tail

    async def _close_then(self, exchange: Exchange, sink: Sink, tail: bytes) -> None:
        """Commits the settlement and the closing record; then, and only then, the last bytes go out.

        Nothing shields the commit from cancellation, since what is submitted is written all the same.
        """
        if self._services.strict:
            await self._close(exchange)
            await sink.finish(tail)
            return
        try:
            await sink.finish(tail)
        finally:
            await self._close(exchange)

    async def _failed(self, exchange: Exchange, sink: Sink, error: BaseException) -> None:
        """Settles and records a call that did not end well, whatever ended it."""
        exchange.status, exchange.problem = _ending(exchange, error)
        settler = self._services.settler
        if _came_whole(exchange):
            exchange.spent = await settler.finished(exchange)
        elif sink.started or _was_cancelled(exchange):
            exchange.spent = await settler.cut(exchange)
        if not sink.started:
            exchange.released = []
        exchange.spent = total(exchange.spent, exchange.lost)
        await self._close(exchange)

    async def _close(self, exchange: Exchange) -> None:
        services = self._services
        used = amount(exchange.spent, requests=int(exchange.reached_upstream))
        if exchange.overhead_ms is None:
            exchange.overhead_ms = round(exchange.overhead(), 3)
        wrote = Wrote(True, journal.closed(exchange, services.writer.addresser, services.now_us()))
        services.active.pop(exchange.id, None)

        def settled(found: Found) -> Wrote:
            return _UNSETTLED if isinstance(found.results[0], Late) else wrote

        def if_open(found: Found) -> Wrote:
            return wrote if exchange.id in found.open else _UNSETTLED

        if not await services.writer.submit(Job(settled, ops=(Settle(exchange.id, used),))):
            # Its hold is gone: never taken, or expired, and then recovery may have closed the call already.
            await services.writer.submit(Job(if_open, calls=(exchange.id,)))
        services.metrics.observe_call(journal.facts(exchange))

    async def refuse(self, exchange: Exchange, error: ProxyError) -> None:
        """Records a call that was refused before it opened, if its caller is known."""
        if exchange.opened or exchange.caller is None:
            return
        services = self._services
        exchange.status = Status.REFUSED
        exchange.problem = Problem(kind=error.kind.value, message=error.message, status=error.status)
        wrote = Wrote(None, journal.refused(exchange, services.writer.addresser, services.now_us()))
        await services.writer.submit(Job(lambda _: wrote))
        services.metrics.observe_call(journal.facts(exchange))


_UNSETTLED = Wrote(False)


def _came_whole(exchange: Exchange) -> bool:
    """Whether the last target asked did its part, so that it was the proxy which refused the reply."""
    return bool(exchange.attempts) and not exchange.attempts[-1].failure


def _was_cancelled(exchange: Exchange) -> bool:
    """Whether the call ended while a target was at work on it, not between two attempts."""
    return bool(exchange.attempts) and exchange.attempts[-1].failure == FailureKind.CLIENT_GONE


def _ending(exchange: Exchange, error: BaseException) -> tuple[Status, Problem]:
    match error:
        case ProxyError():
            status = Status.REFUSED if error.kind is Kind.POLICY_DENIED else Status.FAILED
            return status, Problem(kind=error.kind.value, message=error.message, status=error.status)
        case asyncio.CancelledError():
            if exchange.client_gone:
                return Status.CLIENT_GONE, Problem(
                    kind="client_gone", message="The caller left before the end."
                )
            return Status.CUT, Problem(kind="shutdown", message="The proxy was stopped during the call.")
        case _:
            return Status.FAILED, Problem(kind="internal", message=type(error).__name__, status=500)


async def _through(work: Awaitable[None]) -> None:
    """Awaits `work` to its end even if this task is cancelled meanwhile; the cancellation follows after."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
