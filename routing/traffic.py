"""What goes to each target and how it answers: calls in flight, latency, and the last minute's use.

Times are monotonic seconds, passed in. One `Traffic` per process; it isn't thread-safe. What other processes
sent to the same targets is told from outside (`others`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

MINUTE_S = 60.0
TAU_S = 30.0
"""After this long without news, a latency counts for 1/e of what it was: a slow target is asked again."""
PENALTY_S = 1.0
"""The least latency that a target which failed is taken to have: failing fast must not attract calls."""
WORST_S = 60.0
"""Failures in a row double it up to here: a target that failed a hundred times is asked again some day."""
_SAMPLES = 128
_ENOUGH = 20


class Latency:
    """Seconds to the first event: a mean that jumps to peaks at once and falls slowly (peak-EWMA).

    Source: Finagle's `PeakEwma` load metric.
    """

    __slots__ = ("_at", "_mean", "_recent")

    def __init__(self) -> None:
        self._mean = 0.0
        self._at = 0.0
        self._recent: deque[float] = deque(maxlen=_SAMPLES)

    def heard(self, seconds: float, now: float) -> None:
        self._recent.append(seconds)
        self._take(seconds, now)

    def failed(self, seconds: float, now: float) -> None:
        """A failure counts as slow, and as no answer."""
        self._take(max(seconds, min(2 * self.mean(now), WORST_S), PENALTY_S), now)

    def silent(self, seconds: float, now: float) -> None:
        """Nothing came for so long, and then nobody waited any more."""
        if seconds > self.mean(now):
            self._take(seconds, now)

    def mean(self, now: float) -> float:
        """0 where nothing is known, or nothing any more."""
        return self._mean * math.exp((self._at - now) / TAU_S) if self._mean else 0.0

    def p95(self) -> float | None:
        """Of the last answers; None where they are too few to tell."""
        if len(self._recent) < _ENOUGH:
            return None
        return sorted(self._recent)[math.ceil(len(self._recent) * 0.95) - 1]

    def _take(self, seconds: float, now: float) -> None:
        if seconds >= self._mean:
            self._mean = seconds
        else:
            kept = math.exp((self._at - now) / TAU_S)
            self._mean = self._mean * kept + seconds * (1 - kept)
        self._at = now


class Minute:
    """How much was used within the last 60 s, as a sliding window over two fixed ones.

    The window before counts for the part of it that the last 60 s still cover. Asking may look ahead; what
    is added at a time already past counts for the latest window.
    """

    __slots__ = ("_before", "_now", "_window")

    def __init__(self) -> None:
        self._window: int = 0
        self._now = 0
        self._before = 0

    def add(self, amount: int, now: float) -> None:
        window: int = int(now // MINUTE_S)
        if window > self._window:
            self._before, self._now = self._as_of(window)
            self._window = window
        self._now = max(0, self._now + amount)

    def used(self, now: float) -> float:
        before, current = self._as_of(int(now // MINUTE_S))
        return current + before * (1 - now % MINUTE_S / MINUTE_S)

    def room_in(self, most: float, now: float) -> float:
        """Seconds until no more than `most` (at least 0) is used, if nothing more is."""
        if self.used(now) <= most:
            return 0.0
        before, current = self._as_of(int(now // MINUTE_S))
        past = now % MINUTE_S
        if current <= most:  # the window before is on its way out
            return MINUTE_S * (1 - (most - current) / before) - past
        return MINUTE_S - past + MINUTE_S * (1 - most / current)

    def _as_of(self, window: int) -> tuple[int, int]:
        """What the window before that one used, and that one itself."""
        ahead = window - self._window
        if ahead <= 0:
            return self._before, self._now
        return (self._now if ahead == 1 else 0), 0


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other processes have in flight at a target, and what they sent it within the last minute."""

    in_flight: int = 0
    requests: float = 0.0
    tokens: float = 0.0


_NOWHERE = Elsewhere()


class Load:
    """One target's traffic in this process."""

    __slots__ = (
        "attempts",
        "failures",
        "in_flight",
        "last_failure",
        "last_failure_at",
        "requests",
        "streamed",
        "tokens",
        "whole",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.requests = Minute()
        self.tokens = Minute()
        self.whole = Latency()
        self.streamed = Latency()
        self.attempts = 0
        self.failures = 0
        self.last_failure = ""
        self.last_failure_at = 0.0

    def latency(self, *, stream: bool) -> Latency:
        """Of streams and of whole replies apart: the first event of a whole reply is all of it."""
        return self.streamed if stream else self.whole

    def failed(self, kind: str, now: float) -> None:
        self.failures += 1
        self.last_failure, self.last_failure_at = kind, now


class Traffic:
    """Every target's traffic, by its key."""

    __slots__ = ("_loads", "_others")

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}
        self._others: Mapping[str, Elsewhere] = {}

    def load(self, key: str) -> Load:
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = Load()
        return load

    def loads(self) -> Mapping[str, Load]:
        return self._loads

    def tell(self, others: Mapping[str, Elsewhere]) -> None:
        """What other processes sent, as last heard; replaces what was heard before."""
        self._others = others

    def elsewhere(self, key: str) -> Elsewhere:
        return self._others.get(key, _NOWHERE)

    def in_flight(self, key: str) -> int:
        """Calls that the target has now, those of other processes too."""
        load = self._loads.get(key)
        return (load.in_flight if load else 0) + self.elsewhere(key).in_flight

    def began(self, key: str, tokens: int, now: float) -> None:
        load = self.load(key)
        load.in_flight += 1
        load.attempts += 1
        load.requests.add(1, now)
        load.tokens.add(tokens, now)

    def taken_back(self, key: str, tokens: int, now: float) -> None:
        """What `began` was told of was never sent."""
        load = self.load(key)
        load.in_flight -= 1
        load.attempts -= 1
        load.requests.add(-1, now)
        load.tokens.add(-tokens, now)

    def ended(self, key: str, more_tokens: int, now: float) -> None:
        """`more_tokens`: what it used beyond what `began` was told."""
        load = self.load(key)
        load.in_flight -= 1
        if more_tokens:
            load.tokens.add(more_tokens, now)
