"""What all processes on a store told of the targets, seen as one: sums per target, and one fleet. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_proxy.records.fleet_rows import BreakerRow, Report, TargetRow
from llm_proxy.sharing.breakers import OVER_US
from llm_proxy.sharing.traffic import MINUTE_US, heard
from routing.failures import FailureKind
from routing.fleet import Fleet
from routing.traffic import Elsewhere

NOTHING = Elsewhere()
_KINDS = {kind.value: kind for kind in FailureKind}


@dataclass(frozen=True, slots=True)
class Opened:
    """A breaker that isn't closed: `until_us` (Unix µs) is when it lets a probe through, or did."""

    until_us: int
    after: str


@dataclass(frozen=True, slots=True)
class Traffic:
    """One target's, in all processes. `now` is as others count it who have to keep its limits.

    Attempts and failures are since the processes began that sent something within the last day. Latencies
    are means as they were at `heard_us`, in µs, 0 where nothing is known.
    """

    now: Elsewhere = NOTHING
    attempts: int = 0
    failures: int = 0
    last_failure: str = ""
    last_failure_us: int = 0
    whole_us: int = 0
    streamed_us: int = 0
    heard_us: int = 0


NO_TRAFFIC = Traffic()


class Together:
    """Rows as just read, at `now_us`."""

    def __init__(self, breakers: Iterable[BreakerRow], targets: Iterable[TargetRow], now_us: int) -> None:
        rows: dict[str, list[TargetRow]] = {}
        for row in targets:
            rows.setdefault(row.key, []).append(row)
        now = heard((_report(row) for told in rows.values() for row in told), now_us)
        self.now_us = now_us
        self._traffic = {key: _sum(told, now.get(key, NOTHING), now_us) for key, told in rows.items()}
        self._opened = {
            row.key: Opened(row.until_us, row.kind)
            for row in breakers
            if row.until_us is not None and row.until_us > now_us - OVER_US
        }

    def opened(self, key: str) -> Opened | None:
        """The breaker of that key; None where it is closed."""
        return self._opened.get(key)

    def traffic(self, key: str) -> Traffic:
        return self._traffic.get(key, NO_TRAFFIC)

    def fleet(self) -> Fleet:
        """As a process would see it that serves; its clock is Unix seconds."""
        fleet = Fleet()
        for key, opened in self._opened.items():
            fleet.health.hold_open(key, opened.until_us / 1e6, _KINDS.get(opened.after))
        for key, told in self._traffic.items():
            load = fleet.traffic.load(key)
            for latency, micros in ((load.whole, told.whole_us), (load.streamed, told.streamed_us)):
                if micros:
                    latency.heard(micros / 1e6, told.heard_us / 1e6)
        fleet.traffic.tell({key: told.now for key, told in self._traffic.items()})
        return fleet


def _report(row: TargetRow) -> Report:
    return Report(row.key, row.at_us, row.in_flight, row.requests, row.tokens)


def _sum(rows: Sequence[TargetRow], now: Elsewhere, now_us: int) -> Traffic:
    newest = max(rows, key=lambda row: row.at_us)
    failed = max(rows, key=lambda row: row.last_failure_us)
    recent = [row for row in rows if row.at_us > now_us - MINUTE_US] or [newest]
    return Traffic(
        now=now,
        attempts=sum(row.attempts for row in rows),
        failures=sum(row.failures for row in rows),
        last_failure=failed.last_failure,
        last_failure_us=failed.last_failure_us,
        whole_us=_mean([(row.whole_us, row.requests) for row in recent]),
        streamed_us=_mean([(row.streamed_us, row.requests) for row in recent]),
        heard_us=newest.at_us,
    )


def _mean(heard: Sequence[tuple[int, int]]) -> int:
    """Of the latencies that are known, each counted by its process's requests."""
    known = [(latency, max(requests, 1)) for latency, requests in heard if latency]
    total = sum(requests for _, requests in known)
    return sum(latency * requests for latency, requests in known) // total if total else 0
