"""Calls over one fleet, and a second account of them, kept plainly: whatever a plan says is held against it.

What breakers do, what is in flight and what a call may still do is in it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest

from routing.bounds import Backoff, Bounds
from routing.failures import MEANING, Evidence, FailureKind
from routing.fleet import Demand, Fleet
from routing.plan import Exhausted, Failed, Plan, Stop, Succeeded, Try
from routing.targets import Leg, Resolved, RouteTable
from routing.traffic import Elsewhere
from tests.property.routing_tables import BREAKER_KEYS, COOL_DOWN_S, LONGEST_S, PROBE_S

K = FailureKind
ENDS = {K.BAD_REQUEST, K.TOO_LARGE, K.CLIENT_GONE, K.TOTAL_TIMEOUT, K.SUPERSEDED}
"""Kinds after which nobody else is asked."""
ASKS_FOR_ANOTHER = {K.CONTEXT_LENGTH, K.CONTENT_FILTER}
"""Kinds after which only those are asked whom the route names for it."""


@dataclass
class Breaker:
    """One key's: a number of failures in a row, and where it is open until when, and whose probe is out."""

    failures: int = 0
    until: float | None = None
    probe: Try | None = None

    def close(self) -> None:
        self.failures, self.until, self.probe = 0, None, None

    def well(self, now: float) -> None:
        if self.until is None or now >= self.until:
            self.close()

    def there(self, now: float) -> None:
        if self.until is not None and now >= self.until:
            self.close()

    def down(self, now: float, retry_after_s: float | None, threshold: int) -> None:
        self.failures += 1
        counts = self.until is not None or self.failures >= threshold
        asked = 0.0 if retry_after_s is None else min(retry_after_s, LONGEST_S)
        if wait := max(COOL_DOWN_S if counts else 0.0, asked):
            self.open(now + wait)

    def open(self, until: float) -> None:
        self.until = until if self.until is None else max(self.until, until)

    def may_be_asked(self, step: Try) -> bool:
        if self.until is None:
            return True
        taken = (
            self.probe is not None and self.probe is not step and self.probe.starts + PROBE_S > step.starts
        )
        return self.until <= step.starts and not taken

    def asked(self, step: Try) -> None:
        assert self.may_be_asked(step), "it is open, or another probe is out"
        if self.until is not None:
            self.probe = step


@dataclass
class Call:
    plan: Plan
    demand: Demand
    deadline: float
    max_attempts: int
    seeks: FailureKind | None
    underway: list[Try] = field(default_factory=list[Try])
    waiting: list[Try] = field(default_factory=list[Try])
    """Those underway whose delay isn't over."""
    tries: int = 0
    by_deployment: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    failures: int = 0
    hedged: bool = False
    pair: list[Try] = field(default_factory=list[Try])
    released: bool = False
    may_go_on: bool = True
    answered: bool = False
    ended: bool = False


class Account:
    """What happens to the calls is done to the fleet and entered here; `now` is in seconds and only grows."""

    def __init__(self, table: RouteTable, threshold: int, seed: int) -> None:
        self.table = table
        self.threshold = threshold
        self.random = Random(seed)
        self.fleet = Fleet()
        self.now = 1_000.0
        self.calls: list[Call] = []
        self.breakers = {key: Breaker() for key in BREAKER_KEYS}
        self.in_flight: Counter[str] = Counter()
        self.elsewhere: dict[str, Elsewhere] = {}
        self.sent: Counter[tuple[str, float]] = Counter()

    def a_call(self, model: str, demand: Demand, deadline_s: float | None, max_attempts: int) -> Call:
        resolved = self.table.resolve(model)
        assert resolved is not None
        ends = self.now + min(resolved.route.timeouts.total_s, deadline_s or 1e9)
        plan = Plan(
            resolved.chain,
            self.fleet,
            now=self.now,
            random=self.random.random,
            demand=demand,
            deadline=None if deadline_s is None else self.now + deadline_s,
            bounds=Bounds(max_attempts, Backoff(base_s=0.2, max_s=4)),
        )
        return Call(plan, demand, ends, max_attempts, too_long_for_the_first(resolved, demand))

    def busy(self) -> list[Call]:
        return [call for call in self.calls if call.underway]

    def sending(self) -> list[tuple[Call, Try]]:
        return [(call, step) for call in self.calls for step in call.underway if step not in call.waiting]

    def tick(self) -> None:
        """No two things happen at the very same time."""
        self.now += 0.001

    def goes_on(self, call: Call) -> None:
        self.tick()
        if call.answered:
            with pytest.raises(RuntimeError, match="has succeeded"):
                call.plan.next(self.now)
            return
        step = call.plan.next(self.now)
        if isinstance(step, Try):
            assert not call.ended
            assert call.may_go_on, "it went on after a released event or a final failure"
            self.tried(call, step)
            return
        self.exhausted(call, step)

    def hedges(self, call: Call) -> None:
        was = list(call.underway)
        self.tick()
        step = call.plan.hedge(self.now)
        if step is None:
            call.hedged = call.hedged or (len(was) == 1 and not call.answered)
            return
        assert len(was) == 1
        assert not call.hedged
        assert not call.answered
        assert (step.delay_s, step.starts, step.hedge_after_s) == (0, self.now, None)
        assert call.by_deployment[step.target.key, step.target.model] == 0
        call.hedged = True
        self.tried(call, step)
        call.pair = [was[0], step]

    def delay_is_over(self, call: Call) -> None:
        step = call.waiting[0]
        self.now = max(self.now, step.starts)
        may = all(self.breakers[key].may_be_asked(step) for key in keys(step))
        assert call.plan.may_start(step, self.now) == may
        call.waiting.remove(step)
        if may:
            for key in keys(step):
                self.breakers[key].asked(step)
            return
        call.underway.remove(step)
        self.over(step)
        window = step.target.key, self.now // 60
        self.sent[window] = max(0, self.sent[window] - 1)

    def exhausted(self, call: Call, step: Exhausted) -> None:
        assert call.plan.next(self.now) == step
        assert len(step.failures) == call.failures
        assert call.failures == 0 or step.stop not in (Stop.OPEN, Stop.LIMITED)
        assert call.may_go_on or step.stop in (Stop.FINAL, Stop.RELEASED)
        assert step.retry_after_s is None or step.retry_after_s > 0
        call.ended = True

    def tried(self, call: Call, step: Try) -> None:
        call.tries += 1
        assert step.attempt == call.tries <= call.max_attempts
        assert step.delay_s >= 0
        assert self.now + step.delay_s == pytest.approx(step.starts)
        assert step.starts < call.deadline
        assert step.timeouts.total_s <= call.deadline - step.starts + 1e-6
        deployment = step.target.key, step.target.model
        call.by_deployment[deployment] += 1
        others = len(step.target.lanes) - 1
        assert call.by_deployment[deployment] <= 1 + step.leg.route.retries + others
        assert 0 <= step.api_key <= others
        for key in keys(step):
            self.breakers[key].asked(step)
        self.within_limits(step)
        self.in_flight[step.target.key] += 1
        self.sent[step.target.key, self.now // 60] += 1
        call.underway.append(step)
        if step.delay_s:
            call.waiting.append(step)

    def within_limits(self, step: Try) -> None:
        key, limits = step.target.key, step.target.limits
        others = self.elsewhere.get(key, Elsewhere())
        if limits.concurrency is not None:
            assert self.in_flight[key] + others.in_flight < limits.concurrency
        if limits.rpm is not None and not step.delay_s:
            assert self.sent[key, self.now // 60] + others.requests < limits.rpm

    def told_by_another_process(self, key: str, seconds: float | None) -> None:
        if seconds is None:
            self.fleet.health.closed_elsewhere(key)
            self.breakers[key].close()
        else:
            self.fleet.health.hold_open(key, self.now + seconds)
            self.breakers[key].open(self.now + seconds)

    def answers(self, call: Call, step: Try, tokens: int | None) -> None:
        self.tick()
        call.plan.report(step, Succeeded(tokens), self.now)
        call.answered = True
        call.underway.remove(step)
        self.over(step)
        for key in keys(step):
            self.breakers[key].well(self.now)

    def fails(self, call: Call, step: Try, failed: Failed) -> None:
        if failed.kind is K.SUPERSEDED:  # only of two, and not both
            failed = Failed(K.SUPERSEDED if step in call.pair else K.CLIENT_GONE)
        self.tick()
        call.plan.report(step, failed, self.now)
        call.underway.remove(step)
        if step in call.waiting:
            call.waiting.remove(step)
        self.over(step)
        self.breakers_hear(step, failed)
        if failed.kind is K.SUPERSEDED:
            call.pair = []
            return
        call.failures += 1
        call.released = call.released or failed.released
        call.may_go_on = call.may_go_on and goes_on_after(call, step.leg, failed)

    def over(self, step: Try) -> None:
        self.in_flight[step.target.key] -= 1
        for key in keys(step):
            if self.breakers[key].probe is step:
                self.breakers[key].probe = None

    def breakers_hear(self, step: Try, failed: Failed) -> None:
        target, meaning = self.breakers[step.target.key], MEANING[failed.kind]
        if meaning.of_key and len(step.target.lanes) > 1:
            lane = self.breakers[step.target.lanes[step.api_key]]
            lane.open(self.now + max(COOL_DOWN_S, min(failed.retry_after_s or 0.0, LONGEST_S)))
            target.there(self.now)
        elif meaning.evidence is Evidence.DOWN:
            target.down(self.now, failed.retry_after_s, self.threshold)
        elif meaning.evidence is Evidence.ALIVE:
            target.there(self.now)


def keys(step: Try) -> set[str]:
    """Of the breakers that a try concerns: its target's, and its API key's."""
    return {step.target.key, step.target.lanes[step.api_key]}


def too_long_for_the_first(resolved: Resolved, demand: Demand) -> FailureKind | None:
    """What the call's targets were chosen for, where that isn't the model asked for."""

    def fits(legs: tuple[Leg, ...]) -> bool:
        windows = [target.facts.window for leg in legs for target in leg.targets]
        return any(window is None or demand.tokens <= window for window in windows)

    first, *rest = resolved.chain
    displaced = not fits((first,)) and fits((*first.larger, *rest))
    return K.CONTEXT_LENGTH if displaced else None


def goes_on_after(call: Call, leg: Leg, failed: Failed) -> bool:
    """Whether any other target may be asked after this failure. Notes what the call then looks for."""
    if call.released:
        return failed.goes_on
    if failed.kind not in ASKS_FOR_ANOTHER:
        return failed.kind not in ENDS
    if leg.larger if failed.kind is K.CONTEXT_LENGTH else leg.other:
        call.seeks = failed.kind
    return call.seeks is failed.kind
