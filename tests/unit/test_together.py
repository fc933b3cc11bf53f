"""What several processes told of their targets, as one: summed, faded with age, and seen as a fleet."""

from __future__ import annotations

from dataclasses import replace

from llm_proxy.admin.together import NO_TRAFFIC, Opened, Together
from llm_proxy.records.fleet_rows import BreakerRow, TargetRow
from routing.failures import FailureKind
from routing.health import Breaker
from routing.traffic import Elsewhere

NOW = 1_800_000_000_000_000
S = 1_000_000
ROW = TargetRow(
    key="a",
    writer="w1",
    at_us=NOW,
    in_flight=2,
    requests=30,
    tokens=900,
    attempts=100,
    failures=4,
    last_failure="overloaded",
    last_failure_us=NOW - 5 * S,
    whole_us=400_000,
    streamed_us=0,
)


def together(*rows: TargetRow, breakers: tuple[BreakerRow, ...] = ()) -> Together:
    return Together(breakers, rows, NOW)


def test_processes_are_summed() -> None:
    other = replace(
        ROW, writer="w2", requests=10, in_flight=1, whole_us=800_000, last_failure="cut", last_failure_us=NOW
    )
    told = together(ROW, other).traffic("a")
    assert told.now == Elsewhere(3, 40, 1800)
    assert (told.attempts, told.failures, told.last_failure) == (200, 8, "cut")
    assert (told.whole_us, told.streamed_us) == (500_000, 0)


def test_what_a_silent_process_told_fades() -> None:
    half = together(replace(ROW, at_us=NOW - 30 * S)).traffic("a")
    assert half.now == Elsewhere(0, 15, 450)
    gone = together(replace(ROW, at_us=NOW - 3_600 * S)).traffic("a")
    assert gone.now == Elsewhere()
    assert (gone.attempts, gone.failures, gone.whole_us) == (100, 4, 400_000)
    newer = replace(ROW, writer="w2", at_us=NOW - S, whole_us=100_000)
    assert together(replace(ROW, at_us=NOW - 3_600 * S), newer).traffic("a").whole_us == 100_000
    assert together(ROW).traffic("b") is NO_TRAFFIC


def breaker(key: str, until_us: int | None, kind: str = "rate_limited") -> BreakerRow:
    return BreakerRow(key, until_us, kind, NOW, "w1")


def test_breakers_that_closed_or_are_long_over_are_closed() -> None:
    rows = (
        breaker("open", NOW + 12 * S),
        breaker("half", NOW - S),
        breaker("closed", None),
        breaker("over", NOW - 61 * S),
    )
    seen = together(breakers=rows)
    assert seen.opened("open") == Opened(NOW + 12 * S, "rate_limited")
    assert seen.opened("half") == Opened(NOW - S, "rate_limited")
    assert seen.opened("closed") is None
    assert seen.opened("over") is None


def test_the_fleet_is_what_a_process_would_know() -> None:
    rows = (breaker("a", NOW + 12 * S), breaker("b", NOW + S, "a kind of another version"))
    fleet, now = together(ROW, breakers=rows).fleet(), NOW / 1e6
    assert fleet.health.state("a", now) is Breaker.OPEN
    assert fleet.health.why("a") is FailureKind.RATE_LIMITED
    assert fleet.health.why("b") is None
    assert fleet.health.open_until("a") == now + 12
    assert fleet.traffic.in_flight("a") == 2
    assert fleet.traffic.load("a").whole.mean(now) == 0.4
    assert fleet.traffic.load("a").streamed.mean(now) == 0
