"""The stages of one call, in order: admit, inspect, send, gate, settle, record. Refusals are recorded too."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable
from contextlib import suppress

from msgspec import structs

from budgets import Correct, Late, Settle
from llm_proxy import journal
from llm_proxy.admission import Admitted
from llm_proxy.attaching import attach_receipts
from llm_proxy.carrying import Carrying
from llm_proxy.charge import charged
from llm_proxy.downgrading import admit, readied
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.judge import Judge, Rules, refuse_unjudged
from llm_proxy.measuring import learn, measure
from llm_proxy.offering import refusal
from llm_proxy.reactions.alerts import with_records
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Evidence
from llm_proxy.records.unseen import room_for, with_room
from llm_proxy.records.view import Problem, Status
from llm_proxy.sending.attempt import AnySink
from llm_proxy.services import Services
from llm_proxy.settle import amount
from llm_proxy.wire.anthropic_messages.count_tokens import count_body
from routing.failures import FailureKind
from routing.targets import Resolved


class Pipeline:
    """Carries calls. One per worker; every call gets an `Exchange` of its own."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def run(self, exchange: Exchange, sink: AnySink) -> None:
        """One call whose request is parsed, from its admission to its last byte.

        Raises `ProxyError` where it was refused or failed; what happened is committed by then.
        """
        services = self._services
        rules = services.rules
        exchange.policy = rules.sha256 if rules else ""
        await services.stitcher.join(exchange)
        await services.runs.place(exchange)
        route = await readied(services, exchange, rules)
        await services.inspector.look(exchange, rules)
        if exchange.dialect.raw:
            refuse_unjudged(exchange, rules)
        services.active[exchange.id] = exchange.started_us
        try:
            route, admitted = await admit(services, exchange, route, rules)
        except ProxyError as error:
            services.active.pop(exchange.id, None)
            raise await services.runs.explained(exchange, error) from None
        except asyncio.CancelledError as error:
            # What was submitted is written all the same: if it opened the call, the call ends here.
            await through(self._failed(exchange, sink, error))
            raise
        try:
            tail = await self._carry(exchange, sink, route, rules, admitted)
            spent = await services.settler.finished(exchange)
        except BaseException as error:
            await through(self._failed(exchange, sink, error))
            raise
        exchange.status, exchange.problem = (Status.CLIENT_GONE, _LEFT) if exchange.client_gone else _WELL
        exchange.spent = charged(exchange, spent)
        if services.lengths is not None:
            learn(exchange, spent, services.lengths)
        measure(exchange, services.errors, services.metrics)
        attach_receipts(exchange, rules, services.receipts, services.now_us())
        await self._close_then(exchange, sink, tail)

    async def _carry(
        self,
        exchange: Exchange,
        sink: AnySink,
        route: Resolved,
        rules: Rules | None,
        admitted: Admitted,
    ) -> bytes:
        services = self._services
        if admitted.rejected:
            raise ProxyError(
                Kind.POLICY_DENIED,
                f"The request holds {admitted.rejected} (unknown_results: reject). "
                "Send results of released calls only.",
                retryable=False,
            )
        if exchange.offer is not None and exchange.offer.refusal:
            raise refusal(exchange.offer)
        if exchange.answered_here:
            return await self._count(exchange)
        await self._services.inspector.prepare(exchange, rules, admitted.state)
        exchange.continues = exchange.continues and admitted.tries.prompts > admitted.tries.replies
        judge = self._judge(exchange, rules, admitted, sink)
        return await Carrying(services, exchange, sink, route, rules, admitted, judge).run()

    def _judge(self, exchange: Exchange, rules: Rules | None, admitted: Admitted, sink: AnySink) -> Judge:
        of, state = self._services, admitted.state

        async def keep_alive() -> None:
            if exchange.request is not None and exchange.request.stream:
                await sink.release(_WAITS)

        return Judge(
            *(exchange, rules, state, of.writer, of.now_us, of.environment, of.turns, of.alerts),
            approvals=of.approvals,
            keep_alive=keep_alive,
            frozen=of.standing.refresh,
        )

    async def _count(self, exchange: Exchange) -> bytes:
        """The prompt's tokens, counted here, since no server of the model counts them."""
        body = count_body(await self._services.settler.prompt(exchange))
        exchange.emitted = io.BytesIO(body)
        return body

    async def _close_then(self, exchange: Exchange, sink: AnySink, tail: bytes) -> None:
        """Commits the settlement and the closing record; then, and only then, the last bytes go out.

        Nothing shields the commit from cancellation, since what is submitted is written all the same.
        """
        self._services.standing.leave(exchange)
        if self._services.strict:
            await self._close(exchange)
            await sink.finish(tail)
            return
        try:
            await sink.finish(tail)
        finally:
            await self._close(exchange)

    async def _failed(self, exchange: Exchange, sink: AnySink, error: BaseException) -> None:
        """Settles and records a call that did not end well, whatever ended it."""
        self._services.standing.leave(exchange)
        exchange.status, exchange.problem = _ending(exchange, error)
        settler = self._services.settler
        if _came_whole(exchange):
            exchange.spent = await settler.finished(exchange)
        elif exchange.broke_off or _was_broken_off(exchange):
            exchange.spent = await settler.cut(exchange)
        if not sink.started:
            exchange.released = []
        exchange.spent = charged(exchange, exchange.spent)
        await self._close(exchange)

    async def _close(self, exchange: Exchange) -> None:
        if (masking := self._services.recorder.closing(exchange)) is None:
            await self._commit(exchange)
        else:
            await through(self._commit_behind(masking, exchange))

    async def _commit_behind(self, masking: Awaitable[None], exchange: Exchange) -> None:
        await masking
        await self._commit(exchange)

    async def _commit(self, exchange: Exchange) -> None:
        services = self._services
        counts = exchange.reached_upstream or exchange.answered_here
        used = amount(exchange.spent, requests=int(counts))
        if exchange.overhead_ms is None:
            exchange.overhead_ms = round(exchange.overhead(), 3)
        now, alerts = services.now_us(), services.alerts
        prices = services.settler.untold(exchange, now)
        exchange.prefixes = services.stitcher.ended(exchange)
        evidence = self._telling(journal.closed(exchange, services.writer.addresser, now, prices), exchange)
        services.active.pop(exchange.id, None)

        look = room_for(exchange.unseen)

        def wrote(found: Found) -> Wrote:
            told = with_room(evidence, found.seen)
            return Wrote(found.results, with_records(told, alerts.reached(found.results, exchange, now)))

        def settled(found: Found) -> Wrote:
            if isinstance(found.results[0], Late):
                return _UNSETTLED
            return wrote(found)

        def if_open(found: Found) -> Wrote:
            return wrote(found) if exchange.id in found.open else _UNSETTLED

        results = await services.writer.submit(Job(settled, ops=(Settle(exchange.id, used),), look=look))
        if not results:
            # Its hold is gone: never taken, or expired, and then recovery may have closed the call already.
            late = Job(if_open, ops=(Correct(exchange.id, used),), calls=(exchange.id,), look=look)
            results = await services.writer.submit(late)
        if results:
            alerts.count(results)
            services.settler.told(prices)
            exchange.opened = True
        if exchange.opened:
            self._count_call(exchange)

    async def refuse(self, exchange: Exchange, error: ProxyError) -> None:
        """Records a call that was refused before it opened, if its caller is known; else closes it."""
        if exchange.opened or exchange.caller is None:
            return
        services = self._services
        if not exchange.placed:
            with suppress(ProxyError):
                await services.runs.place(exchange)  # the run is begun by it, below whom it names
        exchange.status = Status.REFUSED
        exchange.problem = _problem(error)
        now = services.now_us()
        await services.recorder.request(exchange, services.rules)
        evidence = self._telling(journal.refused(exchange, services.writer.addresser, now), exchange)
        # The commit that was to open it may have gone through all the same, where nobody heard its answer.
        unheard = (exchange.id,) if error.kind is Kind.STORE_UNAVAILABLE else ()

        def unless_open(found: Found) -> Wrote:
            return _UNSETTLED if exchange.id in found.open else Wrote(True, evidence)

        if await services.writer.submit(Job(unless_open, calls=unheard)):
            exchange.refusal_kept = True
            self._count_call(exchange)
            return
        exchange.status, exchange.problem = _ending(exchange, error)
        exchange.released = []
        await self._close(exchange)

    def _telling(self, evidence: Evidence, exchange: Exchange) -> Evidence:
        """With what webhooks are told where a limit ended the call."""
        if exchange.refused is None:
            return evidence
        of = self._services
        return structs.replace(
            evidence, deliveries=of.alerts.refused(exchange.refused, exchange, of.now_us())
        )

    def _count_call(self, exchange: Exchange) -> None:
        if exchange.refused is not None:
            self._services.alerts.count_refusal(exchange.refused.limit_id)
        self._services.metrics.observe_call(journal.facts(exchange))
        if self._services.call_log is not None:
            self._services.call_log.ended(exchange)


_WAITS = b": waiting for approval\n\n"
"""What the caller of a stream hears while a person decides: a comment, which no SDK takes for an event."""
_UNSETTLED = Wrote(False)
_LEFT = Problem(kind="client_gone", message="The caller left before the end.")
_WELL = (Status.OK, None)


def _came_whole(exchange: Exchange) -> bool:
    """Whether the last target asked did its part, so that it was the proxy which refused the reply."""
    assert exchange.request is not None
    ended = exchange.dialect.raw or exchange.assembly.finished(exchange.request.n)
    return exchange.last is not None and not exchange.last.failure and ended


def _was_broken_off(exchange: Exchange) -> bool:
    """Whether the call ended while a target was at work on it, not between two attempts: its caller left,
    or the proxy let it go no further."""
    return exchange.last is not None and exchange.last.failure in ("", FailureKind.CLIENT_GONE)


def _ending(exchange: Exchange, error: BaseException) -> tuple[Status, Problem]:
    match error:
        case ProxyError() if exchange.client_gone and error.kind is not Kind.POLICY_DENIED:
            return Status.CLIENT_GONE, _LEFT  # its reply drained, and came to nothing
        case ProxyError():
            status = Status.REFUSED if error.kind is Kind.POLICY_DENIED else Status.FAILED
            return status, _problem(error)
        case asyncio.CancelledError():
            if exchange.stopped is not None:
                return Status.CUT, _problem(exchange.stopped)
            if exchange.client_gone:
                return Status.CLIENT_GONE, _LEFT
            return Status.CUT, Problem(kind="shutdown", message="The proxy was stopped during the call.")
        case _:
            return Status.FAILED, Problem(kind="internal", message=type(error).__name__, status=500)


def _problem(error: ProxyError) -> Problem:
    return Problem(kind=error.kind.value, message=error.message, status=error.status)


async def through(work: Awaitable[None]) -> None:
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
        try:
            raise cancelled
        finally:
            cancelled = None  # this frame, and the call with it, would be held by what it raised
