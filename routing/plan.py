"""The retry-and-fallback state machine of one call: ask `next` where to go, `report` what came of it.

Playbook: `next` → Try → (wait `delay_s`, ask `may_start`) → send → `heard`? → `report` → `next` → … until a
success is reported or `next` says Exhausted. While a Try gives nothing, `hedge` may start a second one beside
it. It never goes on after a released event unless told that it can, and is bounded in tries and time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from routing.bounds import DEFAULT_BOUNDS, Bounds
from routing.failures import MEANING, Evidence, FailureKind
from routing.fleet import ANY, LIMITED, Demand, Fleet
from routing.order import arranged, fitting
from routing.targets import Leg, Target, Timeouts


class Stop(StrEnum):
    """Why a plan has nowhere left to go."""

    OPEN = "open"
    """No target was tried: every one is open, or at its limits."""
    LIMITED = "limited"
    """No target was tried: every one is at its own limits."""
    SPENT = "spent"
    """Every target failed or is open."""
    FINAL = "final"
    """The last failure is one that no other target may answer for (a caller's 400)."""
    RELEASED = "released"
    """Something of the reply had reached the caller."""
    DEADLINE = "deadline"
    ATTEMPTS = "attempts"


@dataclass(frozen=True, slots=True)
class Try:
    """Wait `delay_s`, then send to `target`. `timeouts.total_s` is what is left of the call by then."""

    target: Target
    attempt: int
    """Counted from 1 over the whole call."""
    delay_s: float
    timeouts: Timeouts
    leg: Leg
    api_key: int = 0
    """Which of the target's API keys to send, from 0."""
    starts: float = 0.0
    """When, `delay_s` included."""
    hedge_after_s: float | None = None
    """After so long without an event, `hedge` may be asked for a second target."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """`tokens`: what the target reported, or is charged for; None where that isn't known."""

    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """`released`: at least one event of this try had reached the caller.

    `goes_on`: another target can go on from what was released, whatever the kind. `retry_same` False: the
    target itself asked not to be asked again.
    """

    kind: FailureKind
    retry_after_s: float | None = None
    released: bool = False
    goes_on: bool = False
    retry_same: bool = True
    tokens: int | None = None


Outcome = Succeeded | Failed


@dataclass(frozen=True, slots=True)
class Attempted:
    target: Target
    failed: Failed


@dataclass(frozen=True, slots=True)
class Exhausted:
    """`retry_after_s`: when the first open target can be asked again; None where waiting proves nothing."""

    stop: Stop
    failures: tuple[Attempted, ...]
    retry_after_s: float | None


class _Tries:
    """Of one target for one model: how often it was asked again, and given another of its API keys."""

    __slots__ = ("retries", "turns")

    def __init__(self) -> None:
        self.retries = 0
        self.turns = 0


class Plan:
    """One call's way through a chain of legs. `now` is monotonic seconds; `random` gives [0, 1).

    `deadline` (monotonic) may only shorten what the first leg's `total_s` allows. RuntimeError where `next`
    and `report` are not called in turn, or after a success.
    """

    __slots__ = (
        "_at",
        "_attempts",
        "_bounds",
        "_chain",
        "_current",
        "_deadline",
        "_demand",
        "_failures",
        "_fleet",
        "_hedged",
        "_over",
        "_random",
        "_released",
        "_retry_at",
        "_seeks",
        "_stop",
        "_targets",
        "_tried",
        "_underway",
        "_untried",
    )

    def __init__(
        self,
        chain: Sequence[Leg],
        fleet: Fleet,
        *,
        now: float,
        random: Callable[[], float],
        demand: Demand = ANY,
        deadline: float | None = None,
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> None:
        if not chain:
            raise ValueError("a plan needs at least one leg: resolve the model first")
        self._chain: Sequence[Leg] = fitting(chain, demand.tokens)
        self._seeks = None if self._chain[0].model == chain[0].model else FailureKind.CONTEXT_LENGTH
        self._fleet = fleet
        self._demand = demand
        self._random = random
        self._bounds = bounds
        total = now + chain[0].route.timeouts.total_s
        self._deadline = total if deadline is None else min(total, deadline)
        self._at = now
        self._targets = self._in_order(self._chain)
        self._untried = sum([len(leg.targets) for leg in self._chain])
        self._tried: dict[tuple[str, str], _Tries] = {}
        self._underway: dict[int, Try] = {}
        self._current: tuple[Leg, Target] | None = None
        self._attempts = 0
        self._retry_at: float | None = None
        self._failures: list[Attempted] = []
        self._stop: Stop | None = None
        self._hedged = False
        self._released = False
        self._over = False

    def next(self, now: float) -> Try | Exhausted:
        """Where to go now. Exhausted is final: asking again gives it again."""
        if self._underway or self._over:
            raise RuntimeError("report the last try first" if self._underway else "the call has succeeded")
        if self._stop is None and now >= self._deadline:
            self._stop = Stop.DEADLINE
        if self._stop is None and self._attempts >= self._bounds.max_attempts:
            self._stop = Stop.ATTEMPTS
        if self._stop is None:
            found = self._again(now) or self._onward(now)
            if found is not None:
                return found
            self._stop = Stop.SPENT if self._failures else self._why_none(now)
        return Exhausted(self._stop, tuple(self._failures), self._soonest(now))

    def may_start(self, step: Try, now: float) -> bool:
        """After its delay: whether its target may still be asked. If not, it's taken back: ask `next`."""
        target = step.target
        if self._fleet.may_start(target, step.api_key, step.starts):
            return True
        del self._underway[step.attempt]
        self._fleet.ended(target, step.api_key, step.starts)
        self._fleet.traffic.taken_back(target.key, self._demand.tokens, now)
        return False

    def hedge(self, now: float) -> Try | None:
        """A second try beside the one that is underway and silent; None where there is none to be had.

        Once per call. Both are reported, the one that came second as `superseded`.
        """
        if len(self._underway) != 1 or self._hedged or self._over:
            return None
        self._hedged = True
        if now >= self._deadline or self._attempts >= self._bounds.max_attempts:
            return None
        return self._onward(now)

    def heard(self, step: Try, now: float) -> None:
        """The first event of this try has come."""
        load = self._fleet.traffic.load(step.target.key)
        load.latency(stream=self._demand.stream).heard(max(0.0, now - step.starts), now)

    def report(self, step: Try, outcome: Outcome, now: float) -> None:
        """What came of a try. Every Try is reported once, one that was given up as `client_gone`."""
        if self._underway.pop(step.attempt, None) is None:
            raise RuntimeError("this try is not underway: call next first")
        key = step.target.key
        tokens = outcome.tokens
        more = 0 if tokens is None else tokens - self._demand.tokens
        self._fleet.traffic.ended(key, more, now)
        self._fleet.ended(step.target, step.api_key, step.starts)
        match outcome:
            case Succeeded():
                self._over = True
                self._well(step, now)
            case Failed():
                self._failed(step, outcome, now)
            case _:
                assert_never(outcome)

    def _well(self, step: Try, now: float) -> None:
        target, fleet = step.target, self._fleet
        fleet.health.succeeded(target.key, now)
        if len(target.lanes) > 1:
            fleet.health.succeeded(target.lanes[step.api_key], now)
        if self._demand.run and step.leg.route.affinity and len(step.leg.targets) > 1:
            fleet.affinity.note(self._demand.run, step.leg.model, target.key, now)

    def _failed(self, step: Try, failed: Failed, now: float) -> None:
        self._tell_traffic(step, failed, now)
        self._tell_health(step, failed, now)
        self._released = self._released or failed.released
        # Of two hedged tries, the one that wasn't called off decides; where both failed, a final one does.
        if failed.kind is FailureKind.SUPERSEDED and self._hedged:
            return
        self._failures.append(Attempted(step.target, failed))
        if self._stop is None:
            self._judge(step, failed, now)

    def _tell_traffic(self, step: Try, failed: Failed, now: float) -> None:
        load = self._fleet.traffic.load(step.target.key)
        latency = load.latency(stream=self._demand.stream)
        match failed.kind:
            case FailureKind.CLIENT_GONE:
                pass
            case FailureKind.SUPERSEDED | FailureKind.TOTAL_TIMEOUT:
                latency.silent(now - step.starts, now)
            case _:
                load.failed(failed.kind.value, now)
                if MEANING[failed.kind].evidence is Evidence.DOWN:
                    latency.failed(now - step.starts, now)

    def _tell_health(self, step: Try, failed: Failed, now: float) -> None:
        health, target, settings = self._fleet.health, step.target, step.leg.route.breaker
        if len(target.lanes) == 1:
            health.failed(target.key, failed.kind, now, failed.retry_after_s, settings)
            return
        lane = target.lanes[step.api_key]
        if MEANING[failed.kind].of_key:
            health.rest(lane, failed.kind, now, failed.retry_after_s, settings)
            health.answered(target.key, now)
        else:
            health.failed(target.key, failed.kind, now, failed.retry_after_s, settings)

    def _judge(self, step: Try, failed: Failed, now: float) -> None:
        meaning, leg, target = MEANING[failed.kind], step.leg, step.target
        tries = self._tried[target.key, target.model]
        if self._released and not failed.goes_on:
            self._stop = Stop.RELEASED
        elif self._released:  # another target goes on with it; the same one would say it all again
            self._retry_at = None
        elif meaning.of_key and tries.turns + 1 < len(target.lanes) and self._awake(target, now):
            tries.turns += 1
            self._current, self._retry_at = (leg, target), now
        elif meaning.retry_same and failed.retry_same and tries.retries < leg.route.retries:
            tries.retries += 1
            self._current = leg, target
            self._retry_at = self._wait_until(tries.retries, failed.retry_after_s, now)
        elif failed.kind is FailureKind.CONTEXT_LENGTH and leg.larger:
            self._detour(leg.larger, failed.kind)
        elif failed.kind is FailureKind.CONTENT_FILTER and leg.other:
            self._detour(leg.other, failed.kind)
        elif not meaning.fall_back and failed.kind is not self._seeks:
            self._stop = Stop.FINAL

    def _awake(self, target: Target, now: float) -> bool:
        return self._fleet.passed_over(target, self._demand, now) is None

    def _detour(self, legs: Sequence[Leg], kind: FailureKind) -> None:
        """From here on only these, one after another: what was next in line would fail in the same way."""
        self._seeks = kind
        self._chain = (*self._chain, *legs)
        self._targets = self._in_order(legs)
        self._untried = sum([len(leg.targets) for leg in legs])

    def _wait_until(self, retry: int, retry_after_s: float | None, now: float) -> float | None:
        backoff = self._bounds.backoff
        delay = backoff.delay(retry, self._random())
        if retry_after_s is None:
            return now + delay
        # Jitter is added on top: everyone who was told the same second must not come back in it.
        return now + retry_after_s + delay if retry_after_s <= backoff.max_s else None

    def _again(self, now: float) -> Try | None:
        if self._retry_at is None or self._current is None:
            return None
        at, self._retry_at = max(now, self._retry_at), None
        spare = self._bounds.max_attempts - self._attempts
        # A retry must not eat the try of a target that was never asked.
        if at >= self._deadline or spare <= self._untried:
            return None
        leg, target = self._current
        api_key = self._fleet.claim(target, self._demand, at)
        if api_key is None:
            return None
        return self._try(leg, target, api_key, now, at)

    def _onward(self, now: float) -> Try | None:
        self._at = now
        for leg, target in self._targets:
            self._untried -= 1
            if (target.key, target.model) in self._tried:
                continue
            api_key = self._fleet.claim(target, self._demand, now)
            if api_key is not None:
                self._tried[target.key, target.model] = _Tries()
                return self._try(leg, target, api_key, now, now)
        return None

    def _try(self, leg: Leg, target: Target, api_key: int, now: float, at: float) -> Try:
        self._attempts += 1
        left = self._deadline - at
        timeouts = leg.route.timeouts
        if left < timeouts.total_s:
            timeouts = replace(timeouts, total_s=left)
        hedge = None if self._hedged or leg.route.hedge is None else self._hedge_after(leg, target)
        step = Try(target, self._attempts, at - now, timeouts, leg, api_key, at, hedge)
        self._underway[step.attempt] = step
        self._fleet.traffic.began(target.key, self._demand.tokens, now)
        return step

    def _hedge_after(self, leg: Leg, target: Target) -> float | None:
        assert leg.route.hedge is not None
        if leg.route.hedge.after_s is not None:
            return leg.route.hedge.after_s
        return self._fleet.traffic.load(target.key).latency(stream=self._demand.stream).p95()

    def _in_order(self, legs: Sequence[Leg]) -> Iterator[tuple[Leg, Target]]:
        """Each leg as it stands once it is come to."""
        for leg in legs:
            for target in arranged(leg, self._fleet, self._demand, self._at, self._random):
                yield leg, target

    def _why_none(self, now: float) -> Stop:
        reasons = [self._fleet.passed_over(target, self._demand, now) for target in self._all()]
        return Stop.LIMITED if all(why in LIMITED for why in reasons) else Stop.OPEN

    def _soonest(self, now: float) -> float | None:
        return self._fleet.wait(self._all(), self._demand, now) or None

    def _all(self) -> list[Target]:
        return [target for leg in self._chain for target in leg.targets]
