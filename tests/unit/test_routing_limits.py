"""What a target takes at most, and several API keys of one target."""

from __future__ import annotations

import pytest

from routing.failures import FailureKind
from routing.fleet import Demand, Fleet, Why
from routing.health import Breaker, BreakerSettings
from routing.plan import Failed, Stop, Succeeded
from routing.targets import Limits, Target
from routing.traffic import Elsewhere
from tests.unit.routing_playbook import Playbook, route, target

K = FailureKind


def call(
    fleet: Fleet, *targets: str | Target, tokens: int = 0, now: float = 0.0, retries: int = 0
) -> Playbook:
    demand = Demand(tokens=tokens)
    return Playbook(route("m", *targets, retries=retries), fleet=fleet, demand=demand, now=now)


# Calls at once


def test_a_target_with_all_the_calls_it_takes_is_passed_over_until_one_ends() -> None:
    fleet, one = Fleet(), target("a", Limits(concurrency=1))
    first = call(fleet, one, "b").goes_to("a")
    call(fleet, one, "b").goes_to("b")
    first.which(Succeeded())
    call(fleet, one, "b").goes_to("a")


def test_where_every_target_is_full_a_call_is_told_to_come_back_in_a_second() -> None:
    fleet, one = Fleet(), target("a", Limits(concurrency=1))
    call(fleet, one).goes_to("a")
    ended = call(fleet, one).ends(Stop.LIMITED)
    assert (ended.retry_after_s, ended.failures) == (1, ())


def test_calls_of_other_processes_take_places() -> None:
    fleet, two = Fleet(), target("a", Limits(concurrency=2))
    fleet.traffic.tell({"a": Elsewhere(in_flight=1)})
    call(fleet, two).goes_to("a")
    call(fleet, two).ends(Stop.LIMITED)
    fleet.traffic.tell({})
    call(fleet, two).goes_to("a")


def test_a_try_that_failed_gives_its_place_back() -> None:
    fleet, one = Fleet(), target("a", Limits(concurrency=1))
    call(fleet, one).goes_to("a").which(K.BAD_REQUEST)
    call(fleet, one).goes_to("a").which(K.CLIENT_GONE)
    call(fleet, one).goes_to("a")


# Requests and tokens a minute


def test_requests_a_minute() -> None:
    fleet, two = Fleet(), target("a", Limits(rpm=2))
    call(fleet, two).goes_to("a").which(Succeeded())
    call(fleet, two).goes_to("a").which(K.SERVER_ERROR)
    ended = call(fleet, two).ends(Stop.LIMITED)
    # Both leave the minute evenly during the one after it: one of them has at its half.
    assert ended.retry_after_s == 90
    call(fleet, two, now=89.9).ends(Stop.LIMITED)
    call(fleet, two, now=90).goes_to("a")


def test_a_target_at_its_limit_leaves_calls_to_others() -> None:
    fleet, one = Fleet(), target("a", Limits(rpm=1))
    call(fleet, one, "b").goes_to("a").which(Succeeded())
    call(fleet, one, "b").goes_to("b")


def test_a_retry_counts_as_a_request() -> None:
    fleet, one = Fleet(), target("a", Limits(rpm=1))
    call(fleet, one, "b", retries=5).goes_to("a").which(K.SERVER_ERROR).goes_to("b")


def test_tokens_a_minute() -> None:
    fleet, hundred = Fleet(), target("a", Limits(tpm=100))
    call(fleet, hundred, tokens=60).goes_to("a")
    call(fleet, hundred, tokens=40).goes_to("a")
    ended = call(fleet, hundred, tokens=60).ends(Stop.LIMITED)
    assert ended.retry_after_s == pytest.approx(60 + 60 * 0.6)
    call(fleet, hundred, tokens=60, now=97).goes_to("a")


def test_a_prompt_larger_than_the_limit_goes_alone() -> None:
    fleet, hundred = Fleet(), target("a", Limits(tpm=100))
    call(fleet, hundred, tokens=500).goes_to("a")
    ended = call(fleet, hundred, tokens=500).ends(Stop.LIMITED)
    assert ended.retry_after_s == 120
    call(fleet, hundred, tokens=500, now=120).goes_to("a")


def test_tokens_are_those_reported_once_they_are_known() -> None:
    fleet, hundred = Fleet(), target("a", Limits(tpm=100))
    call(fleet, hundred, tokens=10).goes_to("a").which(Succeeded(tokens=95))
    assert fleet.traffic.load("a").tokens.used(0) == 95
    call(fleet, hundred, tokens=10).ends(Stop.LIMITED)
    call(fleet, hundred, tokens=5).goes_to("a").which(Failed(K.CUT, tokens=0))
    assert fleet.traffic.load("a").tokens.used(0) == 95


def test_what_other_processes_sent_counts() -> None:
    fleet = Fleet()
    ten, hundred = target("a", Limits(rpm=10)), target("b", Limits(tpm=100))
    fleet.traffic.tell({"a": Elsewhere(requests=9), "b": Elsewhere(tokens=70)})
    call(fleet, ten).goes_to("a")
    call(fleet, ten).ends(Stop.LIMITED)
    call(fleet, hundred, tokens=30).goes_to("b")
    call(fleet, hundred, tokens=1).ends(Stop.LIMITED)


@pytest.mark.parametrize("limits", [Limits(rpm=10), Limits(tpm=100)])
def test_where_others_use_all_of_it_a_call_is_told_to_look_again_soon(limits: Limits) -> None:
    fleet = Fleet()
    fleet.traffic.tell({"a": Elsewhere(requests=12, tokens=130)})
    assert call(fleet, target("a", limits), tokens=10).ends(Stop.LIMITED).retry_after_s == 1


def test_a_retry_that_waits_into_the_next_minute_counts_in_this_one() -> None:
    fleet, four = Fleet(), target("a", Limits(rpm=4))
    for _ in range(2):
        call(fleet, four, now=59.9).goes_to("a")
    book = call(fleet, four, now=59.9, retries=1).goes_to("a")
    book.which(Failed(K.CONFLICT, retry_after_s=2)).goes_to("a")
    assert book.now > 60
    call(fleet, four, now=59.95).ends(Stop.LIMITED)


def test_why_a_target_is_passed_over() -> None:
    fleet = Fleet()
    tight = target("a", Limits(rpm=1, tpm=10, concurrency=1))
    demand = Demand(tokens=8)
    assert fleet.passed_over(tight, demand, 0) is None
    fleet.traffic.began("a", 8, 0)
    assert fleet.passed_over(tight, demand, 0) is Why.CONCURRENCY
    fleet.traffic.ended("a", 0, 0)
    assert fleet.passed_over(tight, demand, 0) is Why.RPM
    assert fleet.passed_over(target("a", Limits(tpm=10)), demand, 0) is Why.TPM
    fleet.health.hold_open("a", 5)
    assert fleet.passed_over(tight, demand, 0) is Why.OPEN


# Open and limited


def test_one_open_and_one_limited_is_open_until_the_first_of_them_may_be_asked() -> None:
    fleet, one = Fleet(), target("a", Limits(rpm=1))
    call(fleet, one).goes_to("a").which(Succeeded())
    fleet.health.hold_open("b", 7)
    assert call(fleet, one, "b").ends(Stop.OPEN).retry_after_s == 7


def test_a_target_that_is_both_waits_for_the_longer() -> None:
    fleet, one = Fleet(), target("a", Limits(concurrency=1))
    call(fleet, one).goes_to("a")
    fleet.health.hold_open("a", 9)
    assert call(fleet, one).ends(Stop.OPEN).retry_after_s == 9


def test_the_wait_is_told_behind_failures_too() -> None:
    fleet, one = Fleet(), target("b", Limits(concurrency=1))
    call(fleet, one).goes_to("b")
    book = call(fleet, "a", one).goes_to("a").which(Failed(K.OVERLOADED, retry_after_s=30))
    assert book.ends(Stop.SPENT).retry_after_s == 1


# Several API keys

THREE = target("a", api_keys=3)


def test_api_keys_take_turns() -> None:
    fleet = Fleet()
    for api_key in (0, 1, 2, 0, 1):
        call(fleet, THREE).goes_to("a", api_key).which(Succeeded())


@pytest.mark.parametrize("kind", [K.AUTH, K.RATE_LIMITED, K.QUOTA_EXHAUSTED])
def test_a_key_that_is_refused_rests_alone_and_the_next_goes_on_at_once(kind: FailureKind) -> None:
    fleet = Fleet()
    book = call(fleet, THREE, "b", retries=0).goes_to("a", 0)
    book.which(Failed(kind, retry_after_s=40)).goes_to("a", 1)
    assert book.waits == [0, 0]
    book.which(Succeeded())
    assert [fleet.health.open_until(key) for key in ("a", "a#1", "a#2", "a#3")] == [None, 40, None, None]
    for api_key in (2, 1, 2):
        call(fleet, THREE).goes_to("a", api_key).which(Succeeded())


def test_another_key_costs_no_retry() -> None:
    book = call(Fleet(), THREE, retries=1).goes_to("a", 0)
    book.which(K.RATE_LIMITED).goes_to("a", 1).which(K.SERVER_ERROR).goes_to("a", 2)
    book.which(K.SERVER_ERROR).ends(Stop.SPENT)


def test_a_key_whose_rest_is_over_is_probed() -> None:
    fleet = Fleet()
    fleet.health.rest("a#1", K.AUTH, 0, None)
    call(fleet, THREE, now=15).goes_to("a", 0)
    assert fleet.health.state("a#1", 15) is Breaker.HALF_OPEN
    for api_key in (1, 2, 1):
        call(fleet, THREE, now=15).goes_to("a", api_key)


def test_where_all_keys_rest_the_target_is_open_until_the_first_is_rested() -> None:
    fleet = Fleet()
    book = call(fleet, THREE, "b", retries=1)
    for api_key, wait in enumerate((50, 20, 40)):
        book.goes_to("a", api_key).which(Failed(K.RATE_LIMITED, retry_after_s=wait))
    book.goes_to("b").which(Succeeded())
    ended = call(fleet, THREE, now=5).ends(Stop.OPEN)
    assert ended.retry_after_s == 15
    call(fleet, THREE, now=20).goes_to("a", 1)


def test_each_key_is_turned_to_once_in_a_call() -> None:
    book = call(Fleet(), target("a", api_keys=2))
    book.goes_to("a", 0)
    book.now = 20
    book.which(K.AUTH).goes_to("a", 1)
    book.now = 40
    book.which(K.AUTH).ends(Stop.SPENT)


def test_what_is_no_fault_of_a_key_counts_for_the_target() -> None:
    fleet, settings = Fleet(), BreakerSettings(threshold=2, cool_down_s=10)
    for api_key in (0, 1):
        book = Playbook(route("m", THREE, breaker=settings), fleet=fleet)
        book.goes_to("a", api_key).which(K.SERVER_ERROR)
    assert fleet.health.open_until("a") == 10
    assert [fleet.health.open_until(lane) for lane in THREE.lanes] == [None, None, None]
    call(fleet, THREE).ends(Stop.OPEN)


def test_a_key_that_is_refused_says_that_the_target_is_there() -> None:
    fleet = Fleet()
    fleet.health.hold_open("a", 5)
    call(fleet, THREE, now=5).goes_to("a").which(K.RATE_LIMITED)
    assert fleet.health.state("a", 5) is Breaker.CLOSED


def test_a_probe_that_is_given_up_frees_the_target_and_its_key() -> None:
    fleet = Fleet()
    fleet.health.hold_open("a", 5)
    fleet.health.hold_open("a#1", 5)
    call(fleet, THREE, now=6).goes_to("a", 0).which(K.CLIENT_GONE)
    assert fleet.health.available("a", 6)
    assert fleet.health.available("a#1", 6)


def test_with_one_key_the_breaker_is_the_targets() -> None:
    fleet = Fleet()
    call(fleet, "a").goes_to("a").which(Failed(K.RATE_LIMITED, retry_after_s=3))
    assert fleet.health.open_until("a") == 3
