"""What a call would do, in words: the order is a plan's, and asking claims, draws and changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from routing.explain import Prospect, Standing, prospects, soonest, span
from routing.failures import FailureKind
from routing.fleet import ANY, Demand, Fleet
from routing.health import Breaker
from routing.plan import Failed, Plan, Try
from routing.reasons import REASONS
from routing.strategies import STRATEGIES
from routing.targets import Facts, Limits, Route, RouteTable, Target
from routing.traffic import Elsewhere

NOW = 1_000.0
A, B, C = (Target(id_, "openai", "m") for id_ in "abc")
K = FailureKind


def look(
    *routes: Route, fleet: Fleet | None = None, demand: Demand = ANY, facts: dict[str, Facts] | None = None
) -> tuple[Prospect, ...]:
    known = facts or {}
    table = RouteTable(routes, lambda provider, model: known.get(model, Facts()))
    resolved = table.resolve(routes[0].name)
    assert resolved is not None
    return prospects(resolved, fleet or Fleet(), demand, NOW)


def told(found: tuple[Prospect, ...]) -> list[tuple[str, str]]:
    return [(prospect.target.id, prospect.why) for prospect in found]


def test_every_strategy_has_words() -> None:
    assert set(REASONS) == set(STRATEGIES)


def test_a_list_then_the_fallbacks_each_target_once() -> None:
    found = look(
        Route("m", (A, B), fallbacks=("n", "o")), Route("n", (B, C), strategy="lowest-cost"), Route("o", (C,))
    )
    assert told(found) == [
        ("a", "first in the list"),
        ("b", "second in the list"),
        ("c", "fallback; its price is not known"),
    ]
    assert [prospect.model for prospect in found] == ["m", "m", "n"]
    assert {prospect.standing for prospect in found} == {Standing.ASKED}
    assert soonest(found) == 0


def test_a_single_target_needs_no_strategy() -> None:
    assert told(look(Route("m", (A,), strategy="weighted"))) == [("a", "the only target of m")]


def test_weights_are_told_as_chances_and_nothing_is_drawn() -> None:
    route = Route("m", (A, replace(B, weight=3)), strategy="weighted")
    assert told(look(route)) == [
        ("b", "weight 3 of 4: first for 75% of calls"),
        ("a", "weight 1 of 4: first for 25% of calls"),
    ]
    fleet = Fleet()
    fleet.health.hold_open("b", NOW + 30, K.OVERLOADED)
    assert told(look(route, fleet=fleet)) == [("a", "weight 1 of 1"), ("b", "open for 30 s after overloaded")]


def test_a_runs_own_draw_is_what_the_plan_does() -> None:
    route = Route("m", (A, B, C), strategy="weighted")
    for run in ("agent/one", "agent/two", "agent/three"):
        demand = Demand(run=run)
        found = look(route, demand=demand)
        assert [why for _, why in told(found)] == ["weight 1 of 3, drawn by the run's name"] * 3
        resolved = RouteTable([route]).resolve("m")
        assert resolved is not None
        step = Plan(resolved.chain, Fleet(), now=NOW, random=lambda: 0.5, demand=demand).next(NOW)
        assert isinstance(step, Try)
        assert step.target.id == found[0].target.id


def test_the_target_that_answered_the_run_last_goes_first() -> None:
    fleet = Fleet()
    fleet.affinity.note("agent/r", "m", "b", NOW - 60)
    route = Route("m", (A, B), strategy="least-latency")
    demand = Demand(run="agent/r")
    assert told(look(route, fleet=fleet, demand=demand)) == [
        ("b", "answered this run last"),
        ("a", "not heard of lately, 0 calls in flight"),
    ]
    without = replace(route, affinity=False)
    assert look(without, fleet=fleet, demand=demand)[0].why.startswith("not heard of lately")
    assert told(look(route, fleet=fleet, demand=Demand(prefer="b")))[0] == (
        "b",
        "keeps what the call goes on from",
    )


def test_latencies_with_the_chance_of_each_to_be_the_better_of_two() -> None:
    fleet = Fleet()
    for key, seconds in (("a", 2.0), ("b", 0.5), ("c", 1.0)):
        fleet.traffic.load(key).streamed.heard(seconds, NOW)
    route = Route("m", (A, B, C), strategy="least-latency")
    assert told(look(route, fleet=fleet, demand=Demand(stream=True))) == [
        ("b", "0.50 s to the first event, 0 calls in flight: first for 67% of calls"),
        ("c", "1.00 s to the first event, 0 calls in flight: first for 33% of calls"),
        ("a", "2.00 s to the first event, 0 calls in flight: first for 0% of calls"),
    ]


def test_calls_in_flight_and_prices() -> None:
    fleet = Fleet()
    fleet.traffic.tell({"a": Elsewhere(in_flight=3), "b": Elsewhere(in_flight=1)})
    assert told(look(Route("m", (A, replace(B, weight=2)), strategy="least-busy"), fleet=fleet)) == [
        ("b", "1 call in flight, weight 2"),
        ("a", "3 calls in flight"),
    ]
    dear, cheap = Target("d", "openai", "dear"), Target("e", "openai", "cheap")
    facts = {"dear": Facts(cost=4_375_000), "cheap": Facts(cost=31_250)}
    assert told(look(Route("m", (dear, cheap, A), strategy="lowest-cost"), facts=facts)) == [
        ("e", "$0.0312 per million tokens"),
        ("d", "$4.38 per million tokens"),
        ("a", "its price is not known"),
    ]


@pytest.mark.parametrize(
    ("limits", "used", "why", "wait"),
    [
        (Limits(rpm=60), Elsewhere(requests=60), "at its limit of 60 requests a minute", None),
        (Limits(tpm=10_000), Elsewhere(tokens=9_990), "at its limit of 10,000 tokens a minute", None),
        (Limits(concurrency=2), Elsewhere(in_flight=2), "at its limit of 2 calls at once", 1.0),
    ],
)
def test_limits(limits: Limits, used: Elsewhere, why: str, wait: float | None) -> None:
    fleet = Fleet()
    fleet.traffic.tell({"a": used})
    found = look(Route("m", (replace(A, limits=limits), B)), fleet=fleet, demand=Demand(tokens=20))
    assert told(found) == [("b", "second in the list"), ("a", why)]
    assert found[1].standing is Standing.PASSED_OVER
    assert wait is None or found[1].wait_s == wait


def test_all_open_says_when_and_asking_takes_no_probe() -> None:
    fleet = Fleet()
    fleet.health.hold_open("a", NOW + 12, K.RATE_LIMITED)
    fleet.health.hold_open("b", NOW + 5.04, None)
    route = Route("m", (A, B))
    found = look(route, fleet=fleet)
    assert told(found) == [("a", "open for 12 s after rate_limited"), ("b", "open for 5.0 s")]
    assert soonest(found) == pytest.approx(5.04)

    fleet.health.closed_elsewhere("a")
    fleet.health.hold_open("a", NOW - 1, K.CUT)
    for _ in range(3):
        assert told(look(route, fleet=fleet))[0] == (
            "a",
            "first in the list; half open: the call would be its probe",
        )
    assert fleet.health.claim("a", NOW)
    assert told(look(route, fleet=fleet)) == [
        ("a", "half open, and another call's probe is out"),
        ("b", "open for 5.0 s"),
    ]
    assert fleet.health.state("a", NOW) is Breaker.HALF_OPEN


def test_api_keys_rest_one_by_one() -> None:
    fleet, route = Fleet(), Route("m", (replace(A, api_keys=2), B))
    fleet.health.hold_open("a#1", NOW + 40, K.QUOTA_EXHAUSTED)
    assert told(look(route, fleet=fleet))[0] == ("a", "first in the list; 1 of 2 API keys rest")
    fleet.health.hold_open("a#2", NOW + 20, K.AUTH)
    assert told(look(route, fleet=fleet)) == [
        ("b", "second in the list"),
        ("a", "all 2 API keys rest, the first for 20 s after quota_exhausted, auth"),
    ]


def test_windows_decide_before_anything_is_sent() -> None:
    small, big = Target("small", "openai", "s"), Target("big", "openai", "l")
    facts = {"s": Facts(window=8_192), "l": Facts(window=1_000_000)}
    routes = (
        Route("m", (small,), context_fallbacks=("large",), content_fallbacks=("mild",)),
        Route("large", (big,)),
        Route("mild", (C,)),
    )
    assert told(look(*routes, facts=facts, demand=Demand(tokens=8_192))) == [
        ("small", "the only target of m"),
        ("big", "only for prompts that prove too long for m"),
        ("c", "only for requests that m filters"),
    ]
    long = look(*routes, facts=facts, demand=Demand(tokens=9_000))
    assert told(long)[:2] == [
        ("big", "the prompt is too long for m; the only target of large"),
        ("small", "too small: its window is 8,192 tokens"),
    ]
    assert [p.standing for p in long] == [Standing.ASKED, Standing.PASSED_OVER, Standing.RESERVE]
    assert told(look(routes[0], routes[1], routes[2], facts=facts, demand=Demand(tokens=2_000_000)))[0] == (
        "small",
        "the only target of m; its window of 8,192 tokens may be too small",
    )


def test_spans_of_time_are_never_nothing() -> None:
    assert [span(s) for s in (0.001, 0.44, 9.96, 12.4, 119, 3600, 86_400)] == [
        "0.1 s",
        "0.4 s",
        "10.0 s",
        "12 s",
        "119 s",
        "60 min",
        "24 h",
    ]


@pytest.mark.parametrize("strategy", list(STRATEGIES))
@pytest.mark.parametrize("run", ["", "agent/one", "agent/two"])
def test_the_order_told_is_the_order_in_which_a_plan_asks(strategy: str, run: str) -> None:
    facts = {"x": Facts(cost=3), "y": Facts(cost=1), "m": Facts(cost=2)}
    targets = (replace(A, weight=2), replace(B, model="x"), replace(C, model="y", weight=5))
    routes = [Route("m", targets, strategy=strategy, fallbacks=("n",)), Route("n", (Target("d", "p", "m"),))]
    table = RouteTable(routes, lambda provider, model: facts[model])
    resolved = table.resolve("m")
    assert resolved is not None
    fleet, demand = Fleet(), Demand(run=run)
    fleet.affinity.note("agent/two", "m", "b", NOW)
    fleet.traffic.tell({"a": Elsewhere(in_flight=2), "b": Elsewhere(in_flight=3)})
    for key, seconds in (("a", 0.3), ("b", 0.4), ("c", 0.2)):
        fleet.traffic.load(key).whole.heard(seconds, NOW)
    plan = Plan(resolved.chain, fleet, now=NOW, random=lambda: 1e-6, demand=demand)
    told_order = [p.target.id for p in prospects(resolved, fleet, demand, NOW)]
    asked: list[str] = []
    while isinstance(step := plan.next(NOW), Try):
        asked.append(step.target.id)
        plan.report(step, Failed(K.NOT_FOUND), NOW)
    assert asked == told_order
    assert sorted(asked) == ["a", "b", "c", "d"]
