"""Per-target breakers: closed, open until a time, then half-open with one probe.

Times are monotonic seconds, passed in. One `Health` per process; it isn't thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from routing.failures import MEANING, Evidence, FailureKind


class Breaker(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a breaker opens and for how long."""

    threshold: int = 5
    """Consecutive failures that open it."""
    cool_down_s: float = 15.0
    max_open_s: float = 3600.0
    """The longest Retry-After that is believed."""
    probe_s: float = 60.0
    """After this long, a probe that never reported no longer keeps others from probing."""
    probe_wait_s: float = 1.0
    """What a caller is told to wait while someone else's probe is out."""


DEFAULT_BREAKER = BreakerSettings()


@dataclass(frozen=True, slots=True)
class Change:
    """A breaker that this process opened, or closed (`until` is None): what others should hear of."""

    key: str
    until: float | None
    kind: FailureKind | None = None


class _State:
    __slots__ = ("failures", "kind", "open_until", "probe_at", "probe_until")

    def __init__(self) -> None:
        self.failures = 0
        self.kind: FailureKind | None = None
        self.open_until: float | None = None
        self.probe_at: float | None = None
        self.probe_until = 0.0


class Health:
    """What is known about each target, by its key. A target never heard of is closed.

    Open deadlines only ever move later, until a success after the deadline closes the breaker.
    """

    __slots__ = ("_changes", "_settings", "_states")

    def __init__(self, settings: BreakerSettings = DEFAULT_BREAKER) -> None:
        self._settings = settings
        self._states: dict[str, _State] = {}
        self._changes: dict[str, Change] = {}

    def state(self, key: str, now: float) -> Breaker:
        state = self._states.get(key)
        if state is None or state.open_until is None:
            return Breaker.CLOSED
        return Breaker.OPEN if now < state.open_until else Breaker.HALF_OPEN

    def open_until(self, key: str) -> float | None:
        """When the breaker lets a probe through; None where it is closed."""
        state = self._states.get(key)
        return None if state is None else state.open_until

    def available(self, key: str, at: float) -> bool:
        """Whether a call may go to this target at that time."""
        state = self._states.get(key)
        if state is None or state.open_until is None:
            return True
        return state.open_until <= at and state.probe_until <= at

    def claim(self, key: str, at: float) -> bool:
        """Whether a call that starts at `at` may go there. Where it is half-open, True takes the probe.

        Who got True says when that call has `ended`, even where it was given up.
        """
        state = self._states.get(key)
        if state is None or state.open_until is None:
            return True
        if state.open_until > at or state.probe_until > at:
            return False
        state.probe_at, state.probe_until = at, at + self._settings.probe_s
        return True

    def may_start(self, key: str, at: float) -> bool:
        """Whether a call that was given its claim for this time, earlier, may still go there."""
        state = self._states.get(key)
        if state is None or state.open_until is None or state.probe_at != at:
            return self.claim(key, at)
        return state.open_until <= at

    def ended(self, key: str, started: float) -> None:
        """The call that was to start then is over: if it was the probe, another may probe."""
        state = self._states.get(key)
        if state is not None and state.probe_at == started:
            state.probe_at, state.probe_until = None, 0.0

    def succeeded(self, key: str, now: float) -> None:
        """Close the breaker, unless it was opened anew since and its time has not come."""
        state = self._states.get(key)
        if state is None or (state.open_until is not None and now < state.open_until):
            return
        self._close(key, state)

    def failed(
        self,
        key: str,
        kind: FailureKind,
        now: float,
        retry_after_s: float | None = None,
        settings: BreakerSettings | None = None,
    ) -> None:
        """Count a failure. A Retry-After opens at once; otherwise the threshold, or a failed probe, does."""
        evidence = MEANING[kind].evidence
        match evidence:
            case Evidence.DOWN:
                self._down(key, kind, now, retry_after_s, settings or self._settings)
            case Evidence.ALIVE:
                self.answered(key, now)
            case Evidence.NONE:
                pass
            case _:
                assert_never(evidence)

    def answered(self, key: str, now: float) -> None:
        """It refused a request, and so it's there: a probe that came to this closes the breaker."""
        state = self._states.get(key)
        if state is not None and state.open_until is not None and now >= state.open_until:
            self._close(key, state)

    def rest(
        self,
        key: str,
        kind: FailureKind,
        now: float,
        retry_after_s: float | None,
        settings: BreakerSettings | None = None,
    ) -> None:
        """Open at the first failure: for one API key of several, since another one serves meanwhile."""
        settings = settings or self._settings
        self._open(key, kind, now + _longest(settings.cool_down_s, retry_after_s, settings))

    def hold_open(self, key: str, until: float, kind: FailureKind | None = None) -> None:
        """Open until then, or longer where it already is: how a breaker of another process is taken over.

        A probe that is out keeps its place: this is told again and again.
        """
        state = self._states.setdefault(key, _State())
        if state.open_until is None or until > state.open_until:
            state.open_until, state.kind = until, kind

    def closed_elsewhere(self, key: str) -> None:
        """Another process found the target well again."""
        self._states.pop(key, None)

    def changes(self) -> tuple[Change, ...]:
        """What opened or closed here since this was last asked; the last change of each key."""
        if not self._changes:
            return ()
        found, self._changes = tuple(self._changes.values()), {}
        return found

    def why(self, key: str) -> FailureKind | None:
        """The failure for which it is open, where that is known."""
        state = self._states.get(key)
        return None if state is None else state.kind

    def soonest(self, keys: Iterable[str], now: float) -> float | None:
        """Seconds until the first of these can be asked: 0 where one can now, None for no keys."""
        return min((self._wait(key, now) for key in keys), default=None)

    def _wait(self, key: str, now: float) -> float:
        state = self._states.get(key)
        if state is None or state.open_until is None:
            return 0.0
        if now < state.open_until:
            return state.open_until - now
        return min(self._settings.probe_wait_s, state.probe_until - now) if state.probe_until > now else 0.0

    def _down(
        self,
        key: str,
        kind: FailureKind,
        now: float,
        retry_after_s: float | None,
        settings: BreakerSettings,
    ) -> None:
        state = self._states.setdefault(key, _State())
        state.failures += 1
        wait = 0.0
        if state.open_until is not None or state.failures >= settings.threshold:
            wait = settings.cool_down_s
        wait = _longest(wait, retry_after_s, settings)
        if wait > 0:
            self._open(key, kind, now + wait)

    def _open(self, key: str, kind: FailureKind, until: float) -> None:
        self.hold_open(key, until, kind)
        self._changes[key] = Change(key, self.open_until(key), kind)

    def _close(self, key: str, state: _State) -> None:
        del self._states[key]
        if state.open_until is not None:
            self._changes[key] = Change(key, None)


def _longest(wait: float, retry_after_s: float | None, settings: BreakerSettings) -> float:
    return wait if retry_after_s is None else max(wait, min(retry_after_s, settings.max_open_s))
