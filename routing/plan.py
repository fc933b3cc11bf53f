"""The retry-and-fallback state machine of one call: ask `next` where to go, `report` what came of it.

Playbook: `next` → Try → (wait `delay_s`, send) → `report` → `next` → … until a success is reported or
`next` says Exhausted. It never goes on after a released event, and is bounded in tries and time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from routing.failures import MEANING, FailureKind
from routing.health import Health
from routing.strategies import strategy_named
from routing.targets import Leg, Target, Timeouts


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between tries at one target: `base_s`, doubled each time up to `max_s`, half of it random.

    A Retry-After longer than `max_s` isn't waited for: the plan goes to the next target.
    """

    base_s: float = 0.25
    max_s: float = 8.0

    def delay(self, retry: int, chance: float) -> float:
        """Before the `retry`th retry (from 1); `chance` in [0, 1) is the jitter."""
        full = min(self.max_s, self.base_s * 2.0 ** min(retry - 1, 32))
        return full * (0.5 + chance / 2)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one call may use up."""

    max_attempts: int = 24
    backoff: Backoff = Backoff()


class Stop(StrEnum):
    """Why a plan has nowhere left to go."""

    OPEN = "open"
    """No target was tried: every one is open."""
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


@dataclass(frozen=True, slots=True)
class Succeeded:
    pass


@dataclass(frozen=True, slots=True)
class Failed:
    """`released`: at least one event of this try had reached the caller."""

    kind: FailureKind
    retry_after_s: float | None = None
    released: bool = False


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


class Plan:
    """One call's way through a chain of legs. `now` is monotonic seconds; `random` gives [0, 1).

    `deadline` (monotonic) may only shorten what the first leg's `total_s` allows. RuntimeError where `next`
    and `report` are not called in turn, or after a success.
    """

    __slots__ = (
        "_attempts",
        "_bounds",
        "_chain",
        "_current",
        "_deadline",
        "_failures",
        "_health",
        "_over",
        "_random",
        "_retries",
        "_retry_at",
        "_stop",
        "_targets",
        "_untried",
        "_waiting",
    )

    def __init__(
        self,
        chain: Sequence[Leg],
        health: Health,
        *,
        now: float,
        random: Callable[[], float],
        deadline: float | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        if not chain:
            raise ValueError("a plan needs at least one leg: resolve the model first")
        self._chain = chain
        self._health = health
        self._random = random
        self._bounds = bounds or Bounds()
        total = now + chain[0].route.timeouts.total_s
        self._deadline = total if deadline is None else min(total, deadline)
        self._targets = self._in_order(now)
        self._untried = sum(len(leg.targets) for leg in chain)
        self._current: tuple[Leg, Target] | None = None
        self._attempts = 0
        self._retries = 0
        self._retry_at: float | None = None
        self._failures: list[Attempted] = []
        self._stop: Stop | None = None
        self._waiting = False
        self._over = False

    def next(self, now: float) -> Try | Exhausted:
        """Where to go now. Exhausted is final: asking again gives it again."""
        if self._waiting or self._over:
            raise RuntimeError("report the last try first" if self._waiting else "the call has succeeded")
        if self._stop is None and now >= self._deadline:
            self._stop = Stop.DEADLINE
        if self._stop is None and self._attempts >= self._bounds.max_attempts:
            self._stop = Stop.ATTEMPTS
        if self._stop is None:
            found = self._again(now) or self._onward(now)
            if found is not None:
                return found
            self._stop = Stop.SPENT if self._failures else Stop.OPEN
        return Exhausted(self._stop, tuple(self._failures), self._soonest(now))

    def report(self, outcome: Outcome, now: float) -> None:
        """What came of the last try. Every Try is reported once, one that was given up as `client_gone`."""
        if not self._waiting or self._current is None:
            raise RuntimeError("there is no try to report on: call next first")
        self._waiting = False
        leg, target = self._current
        match outcome:
            case Succeeded():
                self._over = True
                self._health.succeeded(target.key, now)
            case Failed():
                self._failures.append(Attempted(target, outcome))
                self._health.failed(target.key, outcome.kind, now, outcome.retry_after_s)
                self._judge(leg, outcome, now)
            case _:
                assert_never(outcome)

    def _judge(self, leg: Leg, failed: Failed, now: float) -> None:
        meaning = MEANING[failed.kind]
        if failed.released:
            self._stop = Stop.RELEASED
        elif meaning.retry_same and self._retries < leg.route.retries:
            self._retry_at = self._wait_until(failed.retry_after_s, now)
        elif not meaning.fall_back:
            self._stop = Stop.FINAL

    def _wait_until(self, retry_after_s: float | None, now: float) -> float | None:
        backoff = self._bounds.backoff
        delay = backoff.delay(self._retries + 1, self._random())
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
        if not self._health.claim(target.key, at):
            return None
        self._retries += 1
        return self._try(leg, target, now, at)

    def _onward(self, now: float) -> Try | None:
        for leg, target in self._targets:
            self._untried -= 1
            if self._health.claim(target.key, now):
                self._current = leg, target
                self._retries = 0
                return self._try(leg, target, now, now)
        return None

    def _try(self, leg: Leg, target: Target, now: float, at: float) -> Try:
        self._attempts += 1
        self._waiting = True
        left = self._deadline - at
        timeouts = leg.route.timeouts
        if left < timeouts.total_s:
            timeouts = replace(timeouts, total_s=left)
        return Try(target, self._attempts, at - now, timeouts, leg)

    def _in_order(self, now: float) -> Iterator[tuple[Leg, Target]]:
        for leg in self._chain:
            for target in strategy_named(leg.route.strategy).order(leg.targets, self._health, now):
                yield leg, target

    def _soonest(self, now: float) -> float | None:
        wait = self._health.soonest((t.key for leg in self._chain for t in leg.targets), now)
        return wait or None
