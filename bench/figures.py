"""The figures of a measurement, and the arithmetic that makes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import msgspec


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the load generator saw. Rates and latencies are of the measured window; times are milliseconds.

    `requests` ended inside the window; `answered` also counts those of the warm-up and those still running at
    the window's end. `events` are `data:` events of streams. Latency runs from the request's first write to
    the reply's last byte, `ttfb` to the first byte of its body.
    """

    seconds: float
    requests: int
    answered: int
    errors: int
    problems: tuple[str, ...]
    """The first few errors, in words."""
    requests_per_s: float
    events_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    ttfb_p50_ms: float
    ttfb_p99_ms: float
    request_bytes: float
    """Mean body size."""
    load_cpu_us: float
    """The generator's own CPU per answered request, in microseconds: near one core, it would be the limit."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of one server. `cpu_us` is the server's CPU per answered request, in microseconds,
    including what it still did after the last reply: `drain_s` seconds until its spans had arrived and it was
    quiet."""

    load: LoadResult
    cpu_us: float
    drain_s: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the rounds of one server in one cell."""

    requests_per_s: float
    events_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    ttfb_p50_ms: float
    ttfb_p99_ms: float
    cpu_us: float
    drain_s: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile of values in ascending order; 0 of none. `percent` is in (0, 100]."""
    if not 0 < percent <= 100:
        raise ValueError(f"percent must be in (0, 100], not {percent}")
    if not ordered:
        return 0.0
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1]


def summarise(samples: Sequence[Sample]) -> Summary:
    """Medians, figure by figure. At least one sample."""
    return Summary(
        requests_per_s=median(s.load.requests_per_s for s in samples),
        events_per_s=median(s.load.events_per_s for s in samples),
        p50_ms=median(s.load.p50_ms for s in samples),
        p90_ms=median(s.load.p90_ms for s in samples),
        p99_ms=median(s.load.p99_ms for s in samples),
        ttfb_p50_ms=median(s.load.ttfb_p50_ms for s in samples),
        ttfb_p99_ms=median(s.load.ttfb_p99_ms for s in samples),
        cpu_us=median(s.cpu_us for s in samples),
        drain_s=median(s.drain_s for s in samples),
    )
