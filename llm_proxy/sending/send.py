"""Drives a call's plan over the providers: one target after another until one of them answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from llm_proxy.chat.reply import Assembly
from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.rawflow import RawSink
from llm_proxy.sending.answer import unanswered
from llm_proxy.sending.attempt import AnySink, Attempting, Watching
from llm_proxy.sending.race import Outcome, Race
from llm_proxy.upstream.provider import UpstreamFailure
from routing.failures import MEANING, Charge, FailureKind
from routing.plan import Exhausted, Failed, Plan, Succeeded, Try

Open = Callable[[Try, AnySink, Watching], Attempting]
"""Makes the attempt for a try: it is not yet sent."""


@dataclass(frozen=True, slots=True)
class LostTry:
    """An attempt that failed and may have cost something, and what came of its reply."""

    assembly: Assembly
    charge: Charge
    provider: str
    model: str


class Sender:
    """Sends one call. `current` is the attempt that the exchange tells of; `lost` may have cost something."""

    def __init__(self, exchange: Exchange, sink: AnySink, plan: Plan, open_: Open) -> None:
        self._exchange = exchange
        self._sink = sink
        self._plan = plan
        self._open = open_
        self.current: Attempting | None = None
        self.lost: list[LostTry] = []

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
            if step.hedge_after_s is None or isinstance(self._sink, RawSink):
                outcome = await self._alone(step)
            else:
                outcome = await self._raced(step, step.hedge_after_s)
            if isinstance(outcome, bytes):
                return outcome
            failure = outcome

    def begins(self, attempt: Attempting) -> None:
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

    async def _alone(self, step: Try) -> bytes | UpstreamFailure:
        attempt = self._open(step, self._sink, self)
        try:
            outcome = await attempt.run()
        except BaseException as error:
            self._plan.report(step, self._given_up(error), monotonic())
            raise
        self._settle(attempt, outcome)
        return outcome

    async def _raced(self, step: Try, silent_s: float) -> bytes | UpstreamFailure:
        assert not isinstance(self._sink, RawSink)
        started = [step]

        def second() -> Try | None:
            found = self._plan.hedge(monotonic())
            if found is not None:
                started.append(found)
            return found

        race = Race(self._sink, self._open, second, self)
        try:
            await race.run(step, silent_s)
        except BaseException as error:
            for each in started:
                self._plan.report(each, self._given_up(error), monotonic())
            raise
        # Who was called off goes first: what the last one came to decides how the call goes on.
        for attempt, outcome in sorted(race.ended, key=lambda end: end[1] is not None):
            self._settle(attempt, outcome)
        return _decided(race.ended)

    def _settle(self, attempt: Attempting, outcome: Outcome | None) -> None:
        """Tells the plan what came of an attempt, and notes what it may have cost."""
        now = monotonic()
        match outcome:
            case bytes():
                usage = attempt.flow.assembly.usage
                self._plan.report(attempt.step, Succeeded(usage.total if usage else None), now)
            case UpstreamFailure():
                self._plan.report(attempt.step, self._failed(outcome), now)
                charge = MEANING[outcome.kind].charge
                if charge is not Charge.NEVER and not self._sink.started:
                    self.lost.append(_lost(attempt, charge))
            case ProxyError():
                self._plan.report(attempt.step, Succeeded(), now)
            case None:
                self._plan.report(attempt.step, Failed(FailureKind.SUPERSEDED), now)
                if attempt.sent:
                    said = attempt.flow.assembly.output_chars > 0
                    self.lost.append(_lost(attempt, Charge.USED if said else Charge.MAYBE))

    def _failed(self, failure: UpstreamFailure) -> Failed:
        return Failed(failure.kind, failure.retry_after_s, self._sink.started, retry_same=failure.retry_same)

    def _given_up(self, error: BaseException) -> Succeeded | Failed:
        """What a try that the proxy itself ended says of its target: a refusal of ours is not its fault."""
        if isinstance(error, ProxyError):
            return Succeeded()
        return Failed(FailureKind.CLIENT_GONE, released=self._sink.started)


def _lost(attempt: Attempting, charge: Charge) -> LostTry:
    target = attempt.step.target
    return LostTry(attempt.flow.assembly, charge, target.provider, target.model)


def _decided(ended: list[tuple[Attempting, Outcome | None]]) -> bytes | UpstreamFailure:
    """The reply, else the last failure. Raises what the proxy itself refused where that's all there is."""
    outcomes = [outcome for _, outcome in ended if outcome is not None]
    for outcome in outcomes:
        if isinstance(outcome, bytes):
            return outcome
    for outcome in reversed(outcomes):
        if isinstance(outcome, UpstreamFailure):
            return outcome
    assert isinstance(outcomes[-1], ProxyError)
    raise outcomes[-1]
