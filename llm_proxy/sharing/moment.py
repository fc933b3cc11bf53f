"""One instant by two clocks: the store's times are Unix µs, the fleet's monotonic seconds of its process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    us: int
    """Unix µs."""
    s: float
    """Monotonic seconds."""

    def seconds(self, us: int) -> float:
        """Unix µs as monotonic seconds."""
        return self.s + (us - self.us) / 1e6

    def micros(self, s: float) -> int:
        """Monotonic seconds as Unix µs."""
        return self.us + round((s - self.s) * 1e6)
