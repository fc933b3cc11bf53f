"""Drives a call's plan over the providers: one target after another until one of them answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.flow import Sink
from llm_proxy.rawflow import RawSink
from llm_proxy.sending.answer import unanswered
from llm_proxy.sending.attempt import AnySink, Attempting, Watching
from llm_proxy.sending.lost import LostTry, lost_try
from llm_proxy.sending.race import End, Race
from llm_proxy.sending.resuming import Resuming, Weigh
from llm_proxy.upstream.provider import UpstreamFailure
from routing.failures import MEANING, Charge, FailureKind
from routing.plan import Exhausted, Failed, Plan, Stop, Succeeded, Try

Open = Callable[[Try, AnySink, Watching], Attempting]
"""Makes the attempt for a try: it is not yet sent."""


class Sender:
    """Sends one call. `current` is the attempt that the exchange tells of; `lost` may have cost something.

    `carried_on` were cut, and others went on with what they had given. `hedges`: there is money for two tries
    at once.
    """

    def __init__(
        self,
        exchange: Exchange,
        sink: AnySink,
        plan: Plan,
        open_: Open,
        weigh: Weigh,
        *,
        hedges: bool = False,
    ) -> None:
        self._exchange = exchange
        self._sink = sink
        self._plan = plan
        self._open = open_
        self._hedges = hedges
        self._resuming = Resuming(exchange, weigh)
        self.current: Attempting | None = None
        self.lost: list[LostTry] = []
        self.carried_on: list[Attempting] = []

    async def send(self) -> bytes:
        """Asks targets until one answers whole: the tail of its reply, which waits for the record's commit.

        Raises ProxyError when no target answered.
        """
        failure: UpstreamFailure | None = None
        while True:
            step = self._plan.next(monotonic())
            if isinstance(step, Exhausted):
                raise unanswered(self._exchange, step, failure)
            if step.delay_s > 0:
                await self._pause(step)
                if not self._plan.may_start(step, monotonic()):
                    continue
            self._exchange.asking = True
            outcome = await self._asked(step)
            if isinstance(outcome, bytes):
                return outcome
            failure = outcome
            self._exchange.asking = False
            if self._exchange.client_gone:  # it drained: another target's reply would have no reader
                raise unanswered(self._exchange, Exhausted(Stop.FINAL, (), None), failure)
            await self._resuming.measure()

    def shows(self, attempt: Attempting) -> None:
        if attempt is not self.current and (cut := self._resuming.left()):
            self.carried_on.append(cut)
            self._lose(cut, Charge.USED)
        self.current = attempt
        attempt.adopt()

    def heard(self, attempt: Attempting) -> None:
        self._plan.heard(attempt.step, monotonic())

    def answers(self, attempt: Attempting) -> None:
        """Nobody else would."""

    async def _pause(self, step: Try) -> None:
        before = self._exchange.elapsed()
        try:
            await asyncio.sleep(step.delay_s)
        except asyncio.CancelledError:
            self._plan.report(step, Failed(FailureKind.CLIENT_GONE), monotonic())
            raise
        self._exchange.waited(before, self._exchange.elapsed())

    async def _asked(self, step: Try) -> bytes | UpstreamFailure:
        sink, silent_s = self._sink, step.hedge_after_s
        # Behind what was released only one may go on.
        if silent_s is None or not self._hedges or sink.started or isinstance(sink, RawSink):
            return await self._alone(step)
        return await self._raced(step, silent_s, sink)

    async def _alone(self, step: Try) -> bytes | UpstreamFailure:
        attempt = self._open(step, self._sink, self)
        try:
            outcome = await attempt.run()
        except BaseException as error:
            self._plan.report(step, self._given_up(attempt, error), monotonic())
            raise
        self._settle(End(attempt, outcome))
        return outcome

    async def _raced(self, step: Try, silent_s: float, sink: Sink) -> bytes | UpstreamFailure:
        race = Race(sink, self._open, self._second, self)
        try:
            await race.run(step, silent_s)
        except BaseException as error:
            for end in race.ends():
                self._break_off(end, error)
            raise
        finally:  # they ended in any order, and are told of in that in which they began
            self._exchange.attempts.sort(key=lambda attempt: attempt.started_s)
        ends = race.ends()
        for end in ends:
            self._settle(end)
        return self._decided(ends[-1])

    def _second(self) -> Try | None:
        """A target to start beside a silent one; none for a caller who left, and whose reply drains."""
        return None if self._exchange.client_gone else self._plan.hedge(monotonic())

    def _decided(self, end: End) -> bytes | UpstreamFailure:
        """What the race came to. Raises what the proxy itself refused where that's all there is."""
        if end.attempt is not self.current and end.attempt.sent:
            self.shows(end.attempt)
        if isinstance(end.outcome, ProxyError):
            raise end.outcome
        assert end.outcome is not None, "someone answered or failed"
        return end.outcome

    def _settle(self, end: End) -> None:
        """Tells the plan what came of an attempt, and notes what it may have cost."""
        now, step = monotonic(), end.attempt.step
        match end.outcome:
            case bytes():
                usage = end.attempt.flow.assembly.usage
                self._plan.report(step, Succeeded(usage.total if usage else None), now)
            case UpstreamFailure() as failure:
                goes_on = self._resuming.goes_on(end.attempt, failure)
                released = end.attempt.flow.gave
                self._plan.report(step, _failed(failure, released=released, goes_on=goes_on), now)
                charge = MEANING[failure.kind].charge
                if _worked(end.attempt):  # whatever it failed of in the end
                    charge = Charge.USED
                if charge is not Charge.NEVER and not released:
                    self._lose(end.attempt, charge)
            case ProxyError() if end.answered:
                self._plan.report(step, Succeeded(), now)
            case _:  # called off, or never sent
                self._plan.report(step, Failed(FailureKind.SUPERSEDED), now)
                self._lose_what_was_said(end)

    def _break_off(self, end: End, error: BaseException) -> None:
        """The call ended while this attempt was at work; one that had ended before counts as it did."""
        if end.outcome is not None:
            self._settle(end)
            return
        self._plan.report(end.attempt.step, self._given_up(end.attempt, error), monotonic())
        if end.attempt is not self.current:
            self._lose_what_was_said(end)

    def _given_up(self, attempt: Attempting, error: BaseException) -> Succeeded | Failed:
        """What a try that the proxy itself ended says of its target: a refusal of ours is not its fault."""
        if isinstance(error, ProxyError) and attempt.sent:
            return Succeeded()
        return Failed(FailureKind.CLIENT_GONE, released=self._sink.started)

    def _lose_what_was_said(self, end: End) -> None:
        if end.attempt.sent and end.outcome is None:
            said = end.attempt.flow.assembly.output_chars > 0
            self._lose(end.attempt, Charge.USED if said else Charge.MAYBE)

    def _lose(self, attempt: Attempting, charge: Charge) -> None:
        self.lost.append(lost_try(attempt, charge))


def _worked(attempt: Attempting) -> bool:
    """Whether some of a reply has come, or what it uses."""
    assembly = attempt.flow.assembly if attempt.sent else None
    return assembly is not None and (assembly.output_chars > 0 or assembly.usage is not None)


def _failed(failure: UpstreamFailure, *, released: bool, goes_on: bool) -> Failed:
    return Failed(failure.kind, failure.retry_after_s, released, goes_on, failure.retry_same)
