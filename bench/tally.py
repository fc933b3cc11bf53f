"""Counting replies: which were right, when each came, and what that makes in figures."""

from __future__ import annotations

from typing import NamedTuple

from bench.dialects import SHAPES, Dialect, last_event
from bench.figures import LoadResult, percentile
from bench.http1 import ReplyReader

_EVENT = b"data: "
_PROBLEMS_KEPT = 5


def problem_of(reply: ReplyReader, events: int, dialect: Dialect = Dialect.CHAT) -> str:
    """Why this reply is an error, empty where it is none. `events` as in `Workload.events`."""
    body = reply.body
    shape = SHAPES[dialect]
    if reply.status != 200:
        return f"status {reply.status}: {body[:400].decode(errors='replace')}"
    if not events:
        return "" if shape.whole in body else f"no completion: {body[:400].decode(errors='replace')}"
    if not last_event(body).startswith(shape.last):
        end = shape.last.split()[-1].decode()
        return f"the stream did not end in {end}: …{body[-400:].decode(errors='replace')}"
    seen = body.count(_EVENT)
    return "" if seen == events else f"the stream had {seen} events, {events} were expected"


class Timing(NamedTuple):
    """Seconds of one clock."""

    sent: float
    first: float
    ended: float


class Tally:
    """Gathers what every connection reports. The window opens at `opened` and closes at `close`."""

    def __init__(self, opened: float) -> None:
        self._opened = opened
        self._closed: float | None = None
        self._last = opened
        self._latencies: list[float] = []
        self._first_bytes: list[float] = []
        self._problems: list[str] = []
        self._errors = 0
        self._events = 0
        self._request_bytes = 0
        self.answered = 0

    def close(self, now: float) -> None:
        """Replies that end later are checked but not in the figures. Without it the last reply closes."""
        self._closed = now

    def right(self, timing: Timing, events: int, request_bytes: int) -> None:
        self.answered += 1
        self._request_bytes += request_bytes
        if timing.ended < self._opened or (self._closed is not None and timing.ended > self._closed):
            return
        self._last = timing.ended
        self._events += events
        self._latencies.append(timing.ended - timing.sent)
        self._first_bytes.append(timing.first - timing.sent)

    def wrong(self, problem: str) -> None:
        self._errors += 1
        if len(self._problems) < _PROBLEMS_KEPT:
            self._problems.append(problem)

    def result(self, cpu_s: float) -> LoadResult:
        seconds = (self._last if self._closed is None else self._closed) - self._opened
        latencies, first_bytes = sorted(self._latencies), sorted(self._first_bytes)
        rate = 1 / seconds if seconds > 0 else 0.0
        answered = max(self.answered, 1)
        return LoadResult(
            seconds=seconds,
            requests=len(latencies),
            answered=self.answered,
            errors=self._errors,
            problems=tuple(self._problems),
            requests_per_s=len(latencies) * rate,
            events_per_s=self._events * rate,
            p50_ms=percentile(latencies, 50) * 1e3,
            p90_ms=percentile(latencies, 90) * 1e3,
            p99_ms=percentile(latencies, 99) * 1e3,
            ttfb_p50_ms=percentile(first_bytes, 50) * 1e3,
            ttfb_p99_ms=percentile(first_bytes, 99) * 1e3,
            request_bytes=self._request_bytes / answered,
            load_cpu_us=cpu_s / answered * 1e6,
        )
