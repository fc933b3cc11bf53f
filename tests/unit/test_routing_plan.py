"""The retry-and-fallback machine, as playbooks: what is asked, what came of it, where it goes next."""

from __future__ import annotations

import pytest

from routing.bounds import Backoff, Bounds
from routing.failures import FailureKind
from routing.fleet import Fleet
from routing.health import BreakerSettings
from routing.plan import Failed, Plan, Stop, Succeeded
from tests.unit.routing_playbook import Playbook, route

K = FailureKind


def test_retries_then_the_next_target_then_the_fallback() -> None:
    book = Playbook(route("m", "a", "b", retries=1, fallbacks=("n",)), route("n", "c"))
    book.goes_to("a").which(K.SERVER_ERROR).goes_to("a").which(K.CUT).goes_to("b").which(K.TLS)
    book.goes_to("c").which(K.OVERLOADED)
    ended = book.ends(Stop.SPENT)
    assert [(f.target.id, f.failed.kind) for f in ended.failures] == [
        ("a", K.SERVER_ERROR),
        ("a", K.CUT),
        ("b", K.TLS),
        ("c", K.OVERLOADED),
    ]
    assert ended.retry_after_s is None


def test_attempts_are_counted_over_the_whole_call() -> None:
    book = Playbook(route("m", "a", "b"))
    first = book.goes_to("a").step
    second = book.which(K.DNS).goes_to("b").step
    assert (first.attempt, second.attempt) == (1, 2)


@pytest.mark.parametrize("kind", [K.BAD_REQUEST, K.TOO_LARGE, K.CLIENT_GONE, K.TOTAL_TIMEOUT])
def test_the_callers_own_failure_is_final(kind: FailureKind) -> None:
    book = Playbook(route("m", "a", "b", retries=3, fallbacks=("n",)), route("n", "c"))
    book.goes_to("a").which(kind).ends(Stop.FINAL)


@pytest.mark.parametrize("kind", list(FailureKind))
def test_nothing_follows_a_released_event(kind: FailureKind) -> None:
    book = Playbook(route("m", "a", "b", retries=3))
    book.goes_to("a").which(Failed(kind, released=True)).ends(Stop.RELEASED)


@pytest.mark.parametrize("kind", [K.AUTH, K.FIRST_EVENT_TIMEOUT, K.NOT_FOUND, K.TLS, K.QUOTA_EXHAUSTED])
def test_some_failures_leave_the_target_at_once(kind: FailureKind) -> None:
    Playbook(route("m", "a", "b", retries=3)).goes_to("a").which(kind).goes_to("b")


def test_backoff_doubles_with_jitter_and_is_bounded() -> None:
    bounds = Bounds(backoff=Backoff(base_s=1, max_s=4))
    book = Playbook(route("m", "a", retries=5), bounds=bounds, chance=lambda: 0.5)
    book.goes_to("a")
    for _ in range(5):
        book.which(K.CONFLICT).goes_to("a")
    assert book.waits == [0, 0.75, 1.5, 3, 3, 3]


def test_a_short_retry_after_is_waited_out() -> None:
    book = Playbook(route("m", "a", "b", retries=1))
    book.goes_to("a").which(Failed(K.RATE_LIMITED, retry_after_s=3)).goes_to("a")
    assert book.waits[-1] >= 3


def test_a_long_retry_after_goes_to_the_next_target_and_is_told_at_the_end() -> None:
    book = Playbook(route("m", "a", "b", retries=1))
    book.goes_to("a").which(Failed(K.RATE_LIMITED, retry_after_s=30))
    book.goes_to("b").which(Failed(K.RATE_LIMITED, retry_after_s=20))
    assert book.ends(Stop.SPENT).retry_after_s == 20


def test_open_targets_are_passed_over() -> None:
    fleet = Fleet()
    fleet.health.hold_open("a", 5)
    Playbook(route("m", "a", "b"), fleet=fleet).goes_to("b")


def test_all_open_says_when_to_come_back() -> None:
    fleet = Fleet()
    fleet.health.hold_open("a", 5)
    fleet.health.hold_open("b", 3)
    ended = Playbook(route("m", "a", "b"), fleet=fleet).ends(Stop.OPEN)
    assert ended.retry_after_s == 3
    assert ended.failures == ()


def test_a_breaker_that_opens_ends_the_retries() -> None:
    book = Playbook(route("m", "a", "b", retries=9, breaker=BreakerSettings(threshold=2)))
    book.goes_to("a").which(K.SERVER_ERROR).goes_to("a").which(K.SERVER_ERROR).goes_to("b")


def test_success_closes_the_breaker() -> None:
    book = Playbook(route("m", "a", retries=1, breaker=BreakerSettings(threshold=2)))
    book.goes_to("a").which(K.SERVER_ERROR).goes_to("a").which(Succeeded())
    book.fleet.health.failed("a", K.SERVER_ERROR, book.now, settings=BreakerSettings(threshold=2))
    assert book.fleet.health.available("a", book.now)


def test_no_wait_goes_past_the_deadline() -> None:
    bounds = Bounds(backoff=Backoff(base_s=10, max_s=10))
    book = Playbook(route("m", "a", "b", retries=3, total_s=5), bounds=bounds)
    book.goes_to("a").which(K.SERVER_ERROR).goes_to("b")
    assert book.now == 0


def test_the_deadline_ends_it() -> None:
    book = Playbook(route("m", "a", "b", total_s=600), deadline=4)
    assert book.goes_to("a").step.timeouts.total_s == 4
    book.now = 4
    book.which(K.IDLE_TIMEOUT).ends(Stop.DEADLINE)


def test_a_later_deadline_does_not_lengthen_the_routes() -> None:
    book = Playbook(route("m", "a", total_s=5), deadline=100)
    assert book.goes_to("a").step.timeouts.total_s == 5


def test_attempts_are_bounded_and_retries_leave_room_for_other_targets() -> None:
    book = Playbook(route("m", "a", "b", "c", retries=9), bounds=Bounds(max_attempts=4))
    book.goes_to("a").which(K.CUT).goes_to("a").which(K.CUT)
    book.goes_to("b").which(K.CUT).goes_to("c").which(K.CUT)
    book.ends(Stop.ATTEMPTS)


def test_calls_out_of_turn_are_bugs() -> None:
    book = Playbook(route("m", "a"))
    step = book.goes_to("a").step
    with pytest.raises(RuntimeError, match="report the last try"):
        book.plan.next(0)
    book.which(Succeeded())
    with pytest.raises(RuntimeError, match="has succeeded"):
        book.plan.next(0)
    with pytest.raises(RuntimeError, match="call next first"):
        book.plan.report(step, Succeeded(), 0)


def test_an_empty_chain_is_a_bug() -> None:
    with pytest.raises(ValueError, match="at least one leg"):
        Plan((), Fleet(), now=0, random=lambda: 0.0)


def test_the_target_itself_may_ask_not_to_be_asked_again() -> None:
    book = Playbook(route("m", "a", "b", retries=3))
    book.goes_to("a").which(Failed(K.SERVER_ERROR, retry_same=False)).goes_to("b")


def test_the_breaker_is_that_of_the_route() -> None:
    book = Playbook(route("m", "a", "b", breaker=BreakerSettings(threshold=1, cool_down_s=7)))
    book.goes_to("a").which(K.SERVER_ERROR)
    assert book.fleet.health.open_until("a") == 7


def test_a_breaker_that_opens_during_the_wait_takes_the_retry_back() -> None:
    book = Playbook(route("m", "a", "b", retries=1))
    step = book.goes_to("a").which(K.SERVER_ERROR).goes_to("a").step
    assert book.now == step.starts == 0.125
    book.fleet.health.hold_open("a", 5)
    assert not book.plan.may_start(step, book.now)
    load = book.fleet.traffic.load("a")
    assert (load.in_flight, load.attempts, load.requests.used(book.now)) == (0, 1, 1)
    book.goes_to("b")
    with pytest.raises(RuntimeError, match="not underway"):
        book.plan.report(step, Succeeded(), book.now)


def test_a_breaker_that_stays_closed_during_the_wait_lets_the_retry_start() -> None:
    book = Playbook(route("m", "a", retries=1))
    step = book.goes_to("a").which(K.SERVER_ERROR).goes_to("a").step
    assert book.plan.may_start(step, book.now)
    book.which(Succeeded())


def test_a_retry_whose_breaker_became_half_open_during_the_wait_is_its_probe() -> None:
    book = Playbook(route("m", "a", retries=1))
    step = book.goes_to("a").which(Failed(K.CONFLICT, retry_after_s=3)).goes_to("a").step
    book.fleet.health.hold_open("a", 2)
    assert book.plan.may_start(step, book.now)
    assert not book.fleet.health.available("a", book.now)


def test_a_leg_is_put_in_order_when_it_is_come_to() -> None:
    fleet = Fleet()
    fleet.health.hold_open("b", 10)
    book = Playbook(route("m", "a", fallbacks=("n",)), route("n", "b", "c"), fleet=fleet)
    book.goes_to("a")
    book.now = 11
    book.which(K.TLS).goes_to("b")
