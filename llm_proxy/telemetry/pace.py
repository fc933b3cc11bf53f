"""How fast the exporter may go: its share of a core, how many calls it takes at once, when it tries again.

Each class keeps its own small state and touches no clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """`max_share` of one core, or `hurried_share` once the oldest unsent call is `hurry_after_s` old.

    Times are seconds and sizes bytes, before compression. `trimmed_tries` is how often a span without content
    is sent before its refusal is believed.
    """

    max_share: float = 0.05
    hurried_share: float = 0.25
    hurry_after_s: float = 60.0
    idle_s: float = 0.2
    request_bytes: int = 3_670_016
    max_calls: int = 256
    retry_first_s: float = 0.25
    retry_most_s: float = 5.0
    retry_after_most_s: float = 300.0
    measure_every_s: float = 1.0
    trimmed_tries: int = 8


class Pace:
    """Keeps a thread's CPU time under a share of wall time by sleeping after every millisecond of work.

    The thread shares the interpreter lock with the request path, so what matters beside the share is
    that no single burst is long. `cpu` is that thread's CPU time and `wall` a monotonic clock, in seconds.
    """

    def __init__(
        self,
        share: float,
        cpu: Callable[[], float],
        wall: Callable[[], float],
        sleep: Callable[[float], object],
        burst_s: float = 0.001,
    ) -> None:
        self.share = share
        self._cpu, self._wall, self._sleep = cpu, wall, sleep
        self._burst_s = burst_s
        self._cpu_mark, self._wall_mark = cpu(), wall()

    def breathe(self) -> None:
        """Call between pieces of work: sleeps as long as the share asks for."""
        used = self._cpu() - self._cpu_mark
        if used < self._burst_s:
            return
        pause = used / self.share - (self._wall() - self._wall_mark)
        if pause > 0:
            self._sleep(pause)
        self._cpu_mark, self._wall_mark = self._cpu(), self._wall()


class Appetite:
    """How many calls to read at once: as many as take about 8 ms of CPU and 8 MiB of content."""

    TARGET_CPU_S = 0.008
    TARGET_BYTES = 8 * 1024 * 1024

    def __init__(self, most: int) -> None:
        self._most = most
        self.limit = min(16, most)

    def fed(self, calls: int, cpu_s: float, size: int) -> None:
        """Adapts to what a read of `calls` calls cost."""
        if cpu_s > 2 * self.TARGET_CPU_S or size > self.TARGET_BYTES:
            self.limit = max(1, self.limit // 2)
        elif calls >= self.limit and cpu_s < self.TARGET_CPU_S / 2 and size < self.TARGET_BYTES / 4:
            self.limit = min(self._most, self.limit * 2)


class Backoff:
    """Delays between tries, doubling, each between half and all of its step. `random` gives [0, 1)."""

    def __init__(self, limits: OutboxLimits, random: Callable[[], float]) -> None:
        self._limits = limits
        self._random = random
        self._step = limits.retry_first_s

    def delay(self, after_s: float | None = None) -> float:
        """Seconds to wait now. A server's `after_s` is obeyed where it is longer, up to a limit."""
        own = self._step * (0.5 + self._random() / 2)
        self._step = min(self._step * 2, self._limits.retry_most_s)
        return own if after_s is None else max(own, min(after_s, self._limits.retry_after_most_s))

    def reset(self) -> None:
        self._step = self._limits.retry_first_s
