"""What is known of a target's traffic: the last minute's use, latency, calls in flight."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.traffic import Elsewhere, Latency, Minute, Traffic


def test_a_minute_slides_over_two_windows() -> None:
    minute = Minute()
    minute.add(6, 0)
    assert [minute.used(at) for at in (0, 59, 60, 90, 105, 120)] == [6, 6, 6, 3, 1.5, 0]
    minute.add(2, 90)
    assert [minute.used(at) for at in (90, 105, 120, 150, 180)] == [5, 3.5, 2, 1, 0]


def test_looking_ahead_forgets_nothing() -> None:
    minute = Minute()
    minute.add(6, 30)
    assert minute.used(1_000) == 0
    assert minute.used(30) == 6


def test_what_is_added_late_counts_now() -> None:
    minute = Minute()
    minute.add(6, 59)
    minute.add(1, 61)
    minute.add(1, 59)
    assert minute.used(60) == 8


def test_what_was_too_much_is_given_back_but_never_more() -> None:
    minute = Minute()
    minute.add(5, 1)
    minute.add(-2, 1)
    assert minute.used(1) == 3
    minute.add(-7, 1)
    assert minute.used(1) == 0


def test_a_window_that_was_skipped_leaves_nothing() -> None:
    minute = Minute()
    minute.add(6, 0)
    minute.add(1, 130)
    assert minute.used(130) == 1


@pytest.mark.parametrize(("most", "seconds"), [(9, 0), (5, 0), (3.5, 15), (2, 30), (1, 60), (0, 90)])
def test_when_there_is_room_again(most: float, seconds: float) -> None:
    minute = Minute()
    minute.add(6, 0)
    minute.add(2, 90)
    assert minute.room_in(most, 90) == seconds


def test_an_unused_minute_has_room() -> None:
    assert Minute().room_in(0, 17) == 0


@given(
    added=st.lists(st.tuples(st.integers(0, 50), st.floats(0, 70)), max_size=8),
    most=st.integers(0, 60),
    later=st.floats(0, 130),
)
def test_there_is_room_when_it_was_said_and_not_before(
    added: list[tuple[int, float]], most: int, later: float
) -> None:
    minute, now = Minute(), 0.0
    for amount, elapsed in added:
        now += elapsed
        minute.add(amount, now)
    now += later
    wait = minute.room_in(most, now)
    assert minute.used(now + wait + 1e-6) <= most + 1e-6
    assert wait == 0 or minute.used(now + wait * 0.99) > most - 1e-6


def test_latency_jumps_to_a_peak_and_falls_slowly() -> None:
    latency = Latency()
    assert latency.mean(0) == 0
    latency.heard(0.5, 0)
    latency.heard(2.0, 10)
    assert latency.mean(10) == 2
    latency.heard(1.0, 40)
    assert latency.mean(40) == pytest.approx(2 / math.e + 1 - 1 / math.e)


def test_latency_decays_without_news() -> None:
    latency = Latency()
    latency.heard(3.0, 5)
    assert latency.mean(35) == pytest.approx(3 / math.e)
    assert latency.mean(305) < 0.001


def test_a_failure_counts_as_slow_and_failures_in_a_row_as_slower_up_to_a_minute() -> None:
    latency = Latency()
    latency.failed(0.01, 0)
    assert latency.mean(0) == 1
    latency.failed(0.01, 0)
    assert latency.mean(0) == 2
    latency.failed(7, 0)
    assert latency.mean(0) == 7
    for _ in range(20):
        latency.failed(0.01, 0)
    assert latency.mean(0) == 60
    assert latency.p95() is None


def test_silence_counts_only_where_it_is_longer_than_what_is_known() -> None:
    latency = Latency()
    latency.heard(1.0, 0)
    latency.silent(0.5, 0)
    assert latency.mean(0) == 1
    latency.silent(3, 0)
    assert latency.mean(0) == 3


def test_p95_is_of_the_last_answers() -> None:
    latency = Latency()
    for seconds in range(1, 20):
        latency.heard(seconds, 0)
    assert latency.p95() is None
    latency.heard(20, 0)
    assert latency.p95() == 19
    for seconds in range(21, 201):
        latency.heard(seconds, 0)
    assert latency.p95() == 194


def test_streams_and_whole_replies_are_measured_apart() -> None:
    load = Traffic().load("a")
    load.latency(stream=True).heard(0.2, 0)
    load.latency(stream=False).heard(5, 0)
    assert (load.streamed.mean(0), load.whole.mean(0)) == (0.2, 5)


def test_what_begins_ends_and_counts() -> None:
    traffic = Traffic()
    traffic.began("a", 100, 0)
    traffic.began("a", 50, 0)
    traffic.ended("a", 25, 1)
    load = traffic.load("a")
    assert (load.in_flight, load.attempts, load.requests.used(1), load.tokens.used(1)) == (1, 2, 2, 175)


def test_what_is_taken_back_never_was() -> None:
    traffic = Traffic()
    traffic.began("a", 100, 0)
    traffic.taken_back("a", 100, 1)
    load = traffic.load("a")
    assert (load.in_flight, load.attempts, load.requests.used(1), load.tokens.used(1)) == (0, 0, 0, 0)


def test_other_processes_calls_are_in_flight_too() -> None:
    traffic = Traffic()
    traffic.began("a", 0, 0)
    traffic.tell({"a": Elsewhere(in_flight=3), "b": Elsewhere(in_flight=1)})
    assert [traffic.in_flight(key) for key in "abc"] == [4, 1, 0]
    traffic.tell({})
    assert [traffic.in_flight(key) for key in "abc"] == [1, 0, 0]
