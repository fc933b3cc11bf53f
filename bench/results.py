"""The shape of a benchmark's result file, and the targets it is judged by."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bench.figures import Sample, Summary
from bench.machine import Machine
from bench.usage import Memory
from bench.workload import Prompt, Reply, Workload

LEAST_RATIO = 0.30
LEAST_DELTAS_RATIO = 0.35
MOST_ADDED_MS = 3.0
MOST_TRANSLATION_MS = 1.0
MOST_READY_S = 3.0
MOST_RSS_BEFORE_MB = 150.0
MOST_RSS_COUNTED_MB = 240.0


class Startup(msgspec.Struct, frozen=True, kw_only=True):
    """Starts on fresh stores, and the memory of one of them over its first calls."""

    ready_s: tuple[float, ...]
    before_first_call: Memory
    after_first_call: Memory
    after_calls: Memory
    calls: int
    """How many calls `after_calls` comes after."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One workload on both servers: medians, and every round behind them; None for one that did not run."""

    workload: Workload
    bare: Summary | None
    proxy: Summary | None
    bare_rounds: tuple[Sample, ...]
    proxy_rounds: tuple[Sample, ...]

    @property
    def ratio(self) -> float | None:
        """The proxy's requests/s as a share of the bare pass-through's."""
        if self.bare is None or self.proxy is None or not self.bare.requests_per_s:
            return None
        return self.proxy.requests_per_s / self.bare.requests_per_s

    @property
    def added_p50_ms(self) -> float | None:
        return None if self.bare is None or self.proxy is None else self.proxy.p50_ms - self.bare.p50_ms


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """Calls the proxy answered in the matrix, and the spans that had reached the sink at its end."""

    calls: int
    spans: int
    duplicates: int


class Results(msgspec.Struct, frozen=True, kw_only=True):
    started_at: str
    """UTC, ISO 8601."""
    took_s: float
    quick: bool
    rounds: int
    seconds: float
    """Length of one measured window."""
    machine: Machine
    startup: Startup | None
    cells: tuple[Cell, ...]
    export: Export | None
    translation: dict[str, float]
    """Milliseconds of CPU that translation adds per 100 deltas, by `caller → upstream`."""
    errors: tuple[str, ...]


class Verdict(msgspec.Struct, frozen=True):
    target: str
    figure: str
    met: bool


def verdicts(
    cells: tuple[Cell, ...], startup: Startup | None, translation: Mapping[str, float]
) -> list[Verdict]:
    """Every target that these measurements speak for, with its figure."""
    return [*_speed(cells), *_translation(translation), *_start(startup)]


def _speed(cells: tuple[Cell, ...]) -> list[Verdict]:
    found: list[Verdict] = []
    for cell in cells:
        work, ratio, added = cell.workload, cell.ratio, cell.added_p50_ms
        if ratio is None or added is None or work.prompt is Prompt.UNIQUE or work.reply is Reply.TOOLS:
            continue
        if work.long:
            if work.connections == 32:
                target = f"≥ {LEAST_DELTAS_RATIO:.0%} of the bare deltas/s, {work.name}"
                found.append(Verdict(target, f"{ratio:.1%}", ratio >= LEAST_DELTAS_RATIO))
            continue
        if work.connections == 32 and work.prompt is Prompt.SMALL:
            target = f"≥ {LEAST_RATIO:.0%} of the bare requests/s, {work.name}"
            found.append(Verdict(target, f"{ratio:.1%}", ratio >= LEAST_RATIO))
        if work.connections == 1:
            target = f"≤ {MOST_ADDED_MS:g} ms added to p50, {work.name}"
            found.append(Verdict(target, f"{added:.2f} ms", added <= MOST_ADDED_MS))
    return found


def _translation(added: Mapping[str, float]) -> list[Verdict]:
    return [
        Verdict(
            f"< {MOST_TRANSLATION_MS:g} ms of CPU per 100 deltas added by translation, {way}",
            f"{milliseconds:.2f} ms",
            milliseconds < MOST_TRANSLATION_MS,
        )
        for way, milliseconds in added.items()
    ]


def _start(startup: Startup | None) -> list[Verdict]:
    if startup is None:
        return []
    slowest = max(startup.ready_s)
    before, counted = startup.before_first_call.rss_mb, startup.after_first_call.rss_mb
    return [
        Verdict(
            f"ready within {MOST_READY_S:g} s (slowest of {len(startup.ready_s)})",
            f"{slowest:.2f} s",
            slowest <= MOST_READY_S,
        ),
        Verdict(
            f"< {MOST_RSS_BEFORE_MB:g} MB resident before the first call",
            f"{before:.0f} MB",
            before < MOST_RSS_BEFORE_MB,
        ),
        Verdict(
            f"< {MOST_RSS_COUNTED_MB:g} MB resident after the first counted call",
            f"{counted:.0f} MB",
            counted < MOST_RSS_COUNTED_MB,
        ),
    ]
