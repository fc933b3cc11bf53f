"""In which order each strategy has the targets asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from routing.fleet import ANY, Demand
from routing.strategies import Weighted, strategy_named
from routing.targets import Facts, Target
from routing.traffic import Elsewhere, Traffic

RUN = Demand(run="agent/run-1")


def targets(weights: dict[str, float]) -> list[Target]:
    return [Target(id_, "p", "m", weight=weight) for id_, weight in weights.items()]


def plain(ids: str) -> list[Target]:
    return targets(dict.fromkeys(ids, 1.0))


def ids(ordered: Iterable[Target]) -> str:
    return "".join(target.id for target in ordered)


def order(
    strategy: str,
    among: Sequence[Target],
    traffic: Traffic | None = None,
    demand: Demand = ANY,
    now: float = 0.0,
    chances: Sequence[float] = (),
) -> str:
    drawn = iter(chances)
    ordered = strategy_named(strategy).order(among, traffic or Traffic(), demand, now, lambda: next(drawn))
    return ids(ordered)


def stays(strategy: str, with_: str, among: Sequence[Target], traffic: Traffic) -> bool:
    target = next(target for target in among if target.id == with_)
    return strategy_named(strategy).stays(target, among, traffic, RUN, 0.0)


def busy(**in_flight: int) -> Traffic:
    traffic = Traffic()
    for key, calls in in_flight.items():
        for _ in range(calls):
            traffic.began(key, 0, 0)
    return traffic


def heard(stream: bool = False, **seconds: float) -> Traffic:
    traffic = Traffic()
    for key, mean in seconds.items():
        traffic.load(key).latency(stream=stream).heard(mean, 0)
    return traffic


# Weighted


def test_of_equal_chances_the_heavier_goes_first() -> None:
    among = targets({"a": 1, "b": 4, "c": 2})
    assert order("weighted", among, chances=[0.5, 0.5, 0.5]) == "bca"


def test_a_better_chance_makes_up_for_weight() -> None:
    among = targets({"a": 1, "b": 3})
    assert order("weighted", among, chances=[0.1, 0.5]) == "ab"
    assert order("weighted", among, chances=[0.3, 0.5]) == "ba"


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("agent/run-1", "bdca"),
        ("agent/run-2", "abdc"),
        ("agent/run-3", "bcda"),
        ("агент/прогон", "acdb"),
    ],
)
def test_a_runs_order_is_the_same_in_every_process(run: str, expected: str) -> None:
    among = targets({"a": 1, "b": 4, "c": 2, "d": 1})
    assert order("weighted", among, demand=Demand(run=run)) == expected


def test_a_runs_order_leaves_the_others_as_they_are_where_one_is_gone() -> None:
    among = targets({"a": 1, "b": 4, "c": 2, "d": 1})
    for n in range(50):
        demand = Demand(run=f"run-{n}")
        whole = order("weighted", among, demand=demand)
        for gone in "abcd":
            left = [target for target in among if target.id != gone]
            assert order("weighted", left, demand=demand) == whole.replace(gone, "")


def test_no_run_draws_a_chance_that_has_no_logarithm(monkeypatch: pytest.MonkeyPatch) -> None:
    def highest(x: int) -> int:
        return (1 << 64) - 1

    monkeypatch.setattr("routing.strategies._mixed", highest)
    assert ids(Weighted().order(plain("ab"), Traffic(), RUN, 0, lambda: 0.0)) == "ab"


# Least busy


def test_the_fewest_calls_in_flight_go_first() -> None:
    assert order("least-busy", plain("abc"), busy(a=2, b=0, c=1)) == "bca"


def test_of_equally_busy_ones_the_first_goes_first() -> None:
    assert order("least-busy", plain("abc"), busy(a=1, b=1, c=1)) == "abc"


def test_calls_in_flight_count_by_weight() -> None:
    among = targets({"a": 1, "b": 4})
    assert order("least-busy", among, busy(a=1, b=3)) == "ba"
    assert order("least-busy", among, busy(a=1, b=5)) == "ab"


def test_other_processes_calls_count() -> None:
    traffic = busy(a=1)
    traffic.tell({"b": Elsewhere(in_flight=2)})
    assert order("least-busy", plain("ab"), traffic) == "ab"


def test_a_run_stays_until_its_target_has_over_twice_the_calls_of_another() -> None:
    assert stays("least-busy", "a", plain("ab"), busy(a=4))
    assert not stays("least-busy", "a", plain("ab"), busy(a=5))
    assert stays("least-busy", "a", plain("ab"), busy(a=10, b=3))
    assert not stays("least-busy", "a", plain("ab"), busy(a=11, b=3))


# Least latency


@pytest.mark.parametrize(
    ("chances", "expected"),
    [
        ([0.0, 0.0], "cab"),  # the fastest and the second
        ([0.0, 0.99], "cab"),  # the fastest and the last
        ([0.99, 0.99], "acb"),  # the last and the second
        ([0.5, 0.5], "acb"),  # the second and the last
        ([0.99, 0.0], "cab"),  # the last and the fastest
    ],
)
def test_the_better_of_two_drawn_goes_first_then_the_fastest(chances: list[float], expected: str) -> None:
    assert order("least-latency", plain("abc"), heard(a=1, b=5, c=0.2), chances=chances) == expected


def test_of_two_targets_the_faster_goes_first() -> None:
    assert order("least-latency", plain("ab"), heard(a=1, b=0.5), chances=[0.9, 0.9]) == "ba"


def test_a_single_target_needs_no_chance() -> None:
    assert order("least-latency", plain("a")) == "a"


def test_calls_in_flight_make_a_target_slower() -> None:
    traffic = heard(a=0.5, b=1)
    traffic.began("a", 0, 0)
    assert order("least-latency", plain("ab"), traffic, chances=[0.0, 0.0]) == "ab"
    traffic.began("a", 0, 0)
    assert order("least-latency", plain("ab"), traffic, chances=[0.0, 0.0]) == "ba"


def test_an_unknown_target_is_asked_but_not_by_everyone() -> None:
    traffic = heard(a=0.3)
    assert order("least-latency", plain("ab"), traffic, chances=[0.0, 0.0]) == "ba"
    traffic.began("b", 0, 0)
    assert order("least-latency", plain("ab"), traffic, chances=[0.0, 0.0]) == "ab"


def test_a_slow_target_is_asked_again_when_its_slowness_is_long_ago() -> None:
    traffic = heard(a=9)
    traffic.load("b").whole.heard(1, 60)
    assert order("least-latency", plain("ab"), traffic, now=60, chances=[0.0, 0.0]) == "ba"
    traffic.load("b").whole.heard(1, 67)
    assert order("least-latency", plain("ab"), traffic, now=67, chances=[0.0, 0.0]) == "ab"


def test_streams_go_by_the_latency_of_streams() -> None:
    traffic = heard(a=1, b=2)
    traffic.load("a").streamed.heard(0.9, 0)
    traffic.load("b").streamed.heard(0.1, 0)
    streamed = Demand(stream=True)
    assert order("least-latency", plain("ab"), traffic, chances=[0.0, 0.0]) == "ab"
    assert order("least-latency", plain("ab"), traffic, streamed, chances=[0.0, 0.0]) == "ba"


def test_a_run_stays_until_its_target_is_over_three_times_as_slow_as_the_fastest_known() -> None:
    assert stays("least-latency", "a", plain("abc"), heard(a=3, b=1))
    assert not stays("least-latency", "a", plain("abc"), heard(a=3.01, b=1))
    assert stays("least-latency", "a", plain("abc"), Traffic())


# Lowest cost and ordered


def test_the_cheapest_goes_first_and_those_without_a_price_last() -> None:
    costs = {"a": None, "b": 900_000, "c": 150_000, "d": None, "e": 0}
    among = [Target(id_, "p", "m", facts=Facts(cost=cost)) for id_, cost in costs.items()]
    assert order("lowest-cost", among) == "ecbad"


@pytest.mark.parametrize("strategy", ["ordered", "weighted", "lowest-cost"])
def test_a_run_stays_where_load_does_not_matter(strategy: str) -> None:
    assert stays(strategy, "b", plain("ab"), busy(b=100))
