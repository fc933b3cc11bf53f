"""The exporter's share of a core, its appetite and its patience, with clocks that the test moves."""

from __future__ import annotations

import pytest

from llm_proxy.telemetry.pace import Appetite, Backoff, OutboxLimits, Pace


class Clocks:
    def __init__(self) -> None:
        self.cpu = 0.0
        self.wall = 0.0

    def work(self, seconds: float) -> None:
        self.cpu += seconds
        self.wall += seconds

    def sleep(self, seconds: float) -> None:
        self.wall += seconds


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("piece", [0.0002, 0.003, 0.05])
def test_cpu_time_stays_under_its_share(share: float, piece: float) -> None:
    clocks = Clocks()
    pace = Pace(share, lambda: clocks.cpu, lambda: clocks.wall, clocks.sleep)
    for _ in range(500):
        clocks.work(piece)
        pace.breathe()
    assert clocks.cpu / clocks.wall <= share + 0.01
    assert clocks.cpu / clocks.wall >= share * 0.9, "and no more is slept than the share asks for"


def test_waiting_for_the_network_counts_as_rest() -> None:
    clocks = Clocks()
    pace = Pace(0.1, lambda: clocks.cpu, lambda: clocks.wall, clocks.sleep)
    clocks.work(0.002)
    clocks.sleep(1.0)
    before = clocks.wall
    pace.breathe()
    assert clocks.wall == before


def test_a_slow_read_makes_the_next_one_smaller_and_a_quick_one_larger() -> None:
    appetite = Appetite(256)
    for _ in range(10):
        appetite.fed(appetite.limit, 0.001, 1000)
    assert appetite.limit == 256
    appetite.fed(3, 0.001, 1000)
    assert appetite.limit == 256, "a read that was not full says nothing"
    appetite.fed(256, 0.5, 1000)
    assert appetite.limit == 128
    for _ in range(20):
        appetite.fed(1, 0.0, 100_000_000)
    assert appetite.limit == 1


def test_delays_double_up_to_a_limit_and_obey_the_server() -> None:
    limits = OutboxLimits(retry_first_s=1, retry_most_s=4, retry_after_most_s=60)
    draws = iter([0.0, 0.999, 0.5, 0.5, 0.5, 0.5, 0.5])
    backoff = Backoff(limits, lambda: next(draws))
    assert backoff.delay() == 0.5
    assert backoff.delay() == pytest.approx(2, rel=0.01)
    assert [backoff.delay() for _ in range(2)] == [3, 3]
    assert backoff.delay(after_s=20) == 20
    assert backoff.delay(after_s=1000) == 60
    backoff.reset()
    assert backoff.delay(after_s=0.1) == 0.75
