"""What a process tells others of its traffic, and what it makes of theirs. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llm_proxy.records.fleet_rows import Report, TargetRow
from llm_proxy.sharing.moment import Moment
from routing.traffic import Elsewhere, Load, Traffic

MINUTE_US = 60_000_000
FRESH_US = 5_000_000
"""What is in flight at a process that was silent for longer isn't believed any more."""
EVERY_S = 2.0
"""At most so often is a row written for a target without limits, and for one whose calls just go on."""


@dataclass(frozen=True, slots=True)
class _Told:
    counts: tuple[int, int, int] = (0, 0, 0)
    at: float = float("-inf")


class SharedTraffic:
    """Of one process. Write the rows that are `due`, then say that they were `told`."""

    def __init__(self, traffic: Traffic, keys: frozenset[str], limited: frozenset[str], writer: str) -> None:
        self._traffic = traffic
        self._keys = keys
        self._limited = limited
        self._writer = writer
        self._told: dict[str, _Told] = {}

    def due(self, now: Moment) -> tuple[TargetRow, ...]:
        """Rows of targets that were sent something since, or have calls in flight: none when idle."""
        loads = self._traffic.loads().items()
        return tuple(
            _row(key, self._writer, load, now)
            for key, load in loads
            if key in self._keys and self._is_due(key, load, now.s)
        )

    def told(self, rows: Iterable[TargetRow], at: float) -> None:
        for row in rows:
            self._told[row.key] = _Told((row.attempts, row.failures, row.in_flight), at)

    def _is_due(self, key: str, load: Load, now: float) -> bool:
        told = self._told.get(key, _NOTHING)
        late = now - told.at >= EVERY_S
        if (load.attempts, load.failures, load.in_flight) != told.counts:
            return late or key in self._limited
        return late and load.in_flight > 0


_NOTHING = _Told()


def heard(reports: Iterable[Report], now_us: int) -> dict[str, Elsewhere]:
    """The sums of what others reported, by target, as they stand now.

    A report of the last minute's use fades out over a minute, as if it had been sent evenly. One from a
    clock that is far ahead is not believed.
    """
    sums: dict[str, Elsewhere] = {}
    for report in reports:
        age = now_us - report.at_us
        if not -FRESH_US <= age < MINUTE_US:
            continue
        left = min(1.0, 1 - age / MINUTE_US)
        so_far = sums.get(report.key, Elsewhere())
        sums[report.key] = Elsewhere(
            so_far.in_flight + (report.in_flight if age <= FRESH_US else 0),
            so_far.requests + report.requests * left,
            so_far.tokens + report.tokens * left,
        )
    return sums


def _row(key: str, writer: str, load: Load, now: Moment) -> TargetRow:
    return TargetRow(
        key=key,
        writer=writer,
        at_us=now.us,
        in_flight=load.in_flight,
        requests=round(load.requests.used(now.s)),
        tokens=round(load.tokens.used(now.s)),
        attempts=load.attempts,
        failures=load.failures,
        last_failure=load.last_failure,
        last_failure_us=now.micros(load.last_failure_at) if load.failures else 0,
        whole_us=round(load.whole.mean(now.s) * 1e6),
        streamed_us=round(load.streamed.mean(now.s) * 1e6),
    )
