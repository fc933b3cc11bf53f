"""What one call may use up in tries and waits."""

from __future__ import annotations

from dataclasses import dataclass


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


DEFAULT_BOUNDS = Bounds()
