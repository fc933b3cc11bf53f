"""Calls of one run stay on the target whose prompt cache they warmed."""

from __future__ import annotations

from routing.affinity import WARM_S, Affinity
from routing.failures import FailureKind
from routing.fleet import Demand, Fleet
from routing.plan import Stop, Succeeded
from routing.targets import Limits, Route
from tests.unit.routing_playbook import Playbook, route, target

K = FailureKind
BUSY = route("m", "a", "b", strategy="least-busy")
RUN = Demand(run="agent/run")


def call(fleet: Fleet, *routes: Route, demand: Demand = RUN, now: float = 0.0) -> Playbook:
    return Playbook(*(routes or (BUSY,)), fleet=fleet, demand=demand, now=now)


def warmed(id_: str = "b", model: str = "m") -> Fleet:
    fleet = Fleet()
    fleet.affinity.note(RUN.run, model, id_, 0)
    return fleet


def test_a_run_stays_where_it_was_answered() -> None:
    fleet = Fleet()
    call(fleet).goes_to("a").which(Succeeded())
    call(fleet, demand=Demand()).goes_to("a")
    call(fleet, demand=Demand(run="agent/other")).goes_to("b")
    call(fleet).goes_to("a")


def test_it_moves_where_its_target_is_open_and_then_stays_there() -> None:
    fleet = warmed("a")
    fleet.health.hold_open("a", 10)
    call(fleet).goes_to("b").which(Succeeded())
    call(fleet, now=11).goes_to("b").which(Succeeded())


def test_it_moves_where_its_target_is_full_and_comes_back_if_nobody_else_answered() -> None:
    fleet = Fleet()
    full = route("m", target("a", Limits(concurrency=1)), "b", strategy="least-busy")
    fleet.affinity.note(RUN.run, "m", "a", 0)
    first = call(fleet, full).goes_to("a")
    call(fleet, full).goes_to("b").which(K.BAD_REQUEST)
    first.which(Succeeded())
    call(fleet, full).goes_to("a")


def test_it_moves_within_a_call_that_fails() -> None:
    fleet = warmed("b")
    call(fleet).goes_to("b").which(K.TLS).goes_to("a").which(Succeeded())
    call(fleet).goes_to("a")


def test_it_leaves_a_target_that_is_much_busier_than_another() -> None:
    fleet = warmed("b")
    for _ in range(5):
        fleet.traffic.began("b", 0, 0)
    call(fleet).goes_to("a")


def test_it_leaves_a_target_that_became_much_slower_than_another() -> None:
    fleet = warmed("b")
    fast = route("m", "a", "b", strategy="least-latency")
    fleet.traffic.load("a").whole.heard(1, 0)
    fleet.traffic.load("b").whole.heard(2.9, 0)
    call(fleet, fast).goes_to("b").which(Succeeded())
    fleet.traffic.load("b").whole.heard(10, 0)
    call(fleet, fast).goes_to("a")


def test_a_cache_is_warm_for_ten_minutes_after_its_last_use() -> None:
    fleet = warmed("b")
    call(fleet, now=599.9).goes_to("b").which(Succeeded())
    call(fleet, now=1_199.8).goes_to("b").which(K.BAD_REQUEST)
    call(fleet, now=1_199.9).goes_to("a")


def test_a_model_without_affinity_keeps_nothing() -> None:
    fleet = warmed("b")
    none = route("m", "a", "b", strategy="least-busy", affinity=False)
    call(fleet, none).goes_to("a").which(Succeeded())
    call(fleet).goes_to("b")


def test_without_affinity_a_runs_name_draws_nothing() -> None:
    weighted = route("m", "a", "b", strategy="weighted", affinity=False)
    for chance, first in ((0.1, "a"), (0.9, "b")):
        chances = iter([chance, 0.5])
        book = Playbook(weighted, demand=RUN, chance=lambda drawn=chances: next(drawn))
        book.goes_to(first)


def test_a_call_outside_any_run_goes_its_own_way() -> None:
    call(warmed("b"), demand=Demand()).goes_to("a")


def test_each_model_of_a_run_has_its_own_target() -> None:
    fleet = warmed("b", "m")
    other = route("n", "a", "b", strategy="least-busy")
    call(fleet, other).goes_to("a").which(Succeeded())
    call(fleet).goes_to("b")


def test_a_fallback_that_answered_does_not_go_before_the_model_asked_for() -> None:
    fleet = Fleet()
    routes = route("m", "a", "b", fallbacks=("n",)), route("n", "c", "d")
    call(fleet, *routes).goes_to("a").which(K.TLS).goes_to("b").which(K.TLS).goes_to("c").which(Succeeded())
    call(fleet, *routes).goes_to("a").which(K.TLS).goes_to("b").which(K.TLS).goes_to("c")


def test_the_target_that_keeps_what_the_call_goes_on_from_goes_before_the_warm_one() -> None:
    fleet = warmed("b")
    three = route("m", "a", "b", "c", strategy="ordered")
    call(fleet, three, demand=Demand(run=RUN.run, prefer="c")).goes_to("c").which(K.TLS).goes_to("a")


def test_it_is_passed_over_where_it_is_open() -> None:
    fleet = Fleet()
    fleet.health.hold_open("b", 10)
    book = call(fleet, route("m", "a", "b"), demand=Demand(prefer="b"))
    book.goes_to("a").which(K.TLS).ends(Stop.SPENT)


def test_a_name_that_nobody_has_prefers_nobody() -> None:
    call(Fleet(), route("m", "a", "b"), demand=Demand(prefer="x")).goes_to("a")


def test_the_longest_unused_runs_are_forgotten() -> None:
    affinity = Affinity()
    for n in range(20_000):
        affinity.note(f"run-{n}", "m", "a", 0)
    affinity.note("run-0", "m", "b", 1)
    affinity.note("new", "m", "a", 1)
    assert affinity.target("run-0", "m", 1) == "b"
    assert affinity.target("run-1", "m", 1) is None
    assert affinity.target("run-2", "m", 1) == "a"
    assert affinity.target("run-2", "m", WARM_S) is None
