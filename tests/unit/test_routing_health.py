"""Breakers: closed, open until, half-open with one probe."""

from __future__ import annotations

import pytest

from routing.failures import FailureKind
from routing.health import Breaker, BreakerSettings, Change, Health

K = FailureKind


@pytest.fixture
def health() -> Health:
    return Health(BreakerSettings(threshold=3, cool_down_s=10, max_open_s=100, probe_s=20))


def fail(health: Health, now: float, times: int = 1, kind: FailureKind = K.SERVER_ERROR) -> None:
    for _ in range(times):
        health.failed("t", kind, now)


def probe_fails(health: Health, began: float, now: float, kind: FailureKind = K.SERVER_ERROR) -> None:
    health.ended("t", began)
    health.failed("t", kind, now)


def test_the_threshold_opens_it_for_the_cool_down(health: Health) -> None:
    fail(health, 0, times=2)
    assert health.state("t", 0) is Breaker.CLOSED
    fail(health, 1)
    assert health.state("t", 1) is Breaker.OPEN
    assert health.state("t", 10.9) is Breaker.OPEN
    assert health.state("t", 11) is Breaker.HALF_OPEN
    assert not health.claim("t", 10.9)


def test_failures_count_only_in_a_row(health: Health) -> None:
    fail(health, 0, times=2)
    health.succeeded("t", 1)
    fail(health, 2, times=2)
    assert health.state("t", 2) is Breaker.CLOSED


def test_one_probe_at_a_time(health: Health) -> None:
    fail(health, 0, times=3)
    assert health.claim("t", 10)
    assert not health.claim("t", 10)
    assert health.soonest(["t"], 10) == 1.0


def test_a_good_probe_closes_and_a_bad_one_opens_again(health: Health) -> None:
    fail(health, 0, times=3)
    assert health.claim("t", 10)
    probe_fails(health, 10, 11)
    assert health.open_until("t") == 21
    assert health.claim("t", 21)
    health.succeeded("t", 22)
    assert health.state("t", 22) is Breaker.CLOSED
    fail(health, 23)
    assert health.state("t", 23) is Breaker.CLOSED


def test_a_probe_that_never_reports_gives_way(health: Health) -> None:
    fail(health, 0, times=3)
    assert health.claim("t", 10)
    assert not health.claim("t", 29)
    assert health.claim("t", 30)


def test_a_probe_given_up_frees_its_place(health: Health) -> None:
    fail(health, 0, times=3)
    assert health.claim("t", 10)
    probe_fails(health, 10, 11, kind=K.CLIENT_GONE)
    assert health.state("t", 11) is Breaker.HALF_OPEN
    assert health.claim("t", 11)


@pytest.mark.parametrize("kind", [K.BAD_REQUEST, K.CONTEXT_LENGTH, K.CONFLICT, K.NOT_FOUND])
def test_a_target_that_refuses_the_caller_is_alive(health: Health, kind: FailureKind) -> None:
    fail(health, 0, times=50, kind=kind)
    assert health.state("t", 0) is Breaker.CLOSED
    fail(health, 0, times=3)
    assert health.claim("t", 10)
    probe_fails(health, 10, 11, kind=kind)
    assert health.state("t", 11) is Breaker.CLOSED


def test_retry_after_opens_at_once(health: Health) -> None:
    health.failed("t", K.RATE_LIMITED, 0, retry_after_s=2)
    assert health.open_until("t") == 2


def test_the_longer_deadline_wins(health: Health) -> None:
    health.failed("t", K.RATE_LIMITED, 0, retry_after_s=50)
    fail(health, 1, times=5)
    assert health.open_until("t") == 50
    health.hold_open("t", 40)
    assert health.open_until("t") == 50
    health.hold_open("t", 60)
    assert health.open_until("t") == 60


def test_a_late_success_does_not_shorten_the_deadline(health: Health) -> None:
    health.failed("t", K.RATE_LIMITED, 0, retry_after_s=50)
    health.succeeded("t", 1)
    assert health.state("t", 1) is Breaker.OPEN


def test_an_absurd_retry_after_is_capped(health: Health) -> None:
    health.failed("t", K.RATE_LIMITED, 0, retry_after_s=1e9)
    assert health.open_until("t") == 100


def test_soonest_of_several(health: Health) -> None:
    health.hold_open("a", 9)
    health.hold_open("b", 4)
    assert health.soonest(["a", "b"], 1) == 3
    assert health.soonest(["a", "b", "fresh"], 1) == 0
    assert health.soonest([], 1) is None


@pytest.mark.parametrize("kind", [K.CLIENT_GONE, K.SUPERSEDED, K.TOTAL_TIMEOUT])
def test_another_call_that_tells_nothing_leaves_the_probe_its_place(
    health: Health, kind: FailureKind
) -> None:
    fail(health, 0, times=3)
    assert health.claim("t", 10)
    probe_fails(health, 5, 11, kind=kind)
    assert not health.claim("t", 11)


def test_being_told_again_by_another_process_leaves_the_probe_its_place(health: Health) -> None:
    fail(health, 0, times=3)
    assert health.claim("t", 10)
    health.hold_open("t", 10)
    assert not health.claim("t", 11)


def test_a_late_failure_of_another_call_leaves_the_probe_its_place(health: Health) -> None:
    fail(health, 0, times=3)
    assert health.claim("t", 10)
    fail(health, 11)
    assert not health.claim("t", 21)
    health.ended("t", 10)
    assert health.claim("t", 21)


def test_a_claim_for_later_is_lost_where_the_breaker_opens_meanwhile(health: Health) -> None:
    assert health.claim("t", 5)
    health.hold_open("t", 8)
    assert not health.may_start("t", 5)


def test_a_claim_for_later_stands_where_it_is_the_probe(health: Health) -> None:
    fail(health, 0, times=3)
    assert health.claim("t", 12)
    assert not health.may_start("t", 11)
    assert health.may_start("t", 12)
    health.hold_open("t", 30)
    assert not health.may_start("t", 12)


def test_a_claim_for_later_becomes_the_probe_of_a_breaker_that_is_half_open_by_then(health: Health) -> None:
    assert health.claim("t", 5)
    health.hold_open("t", 4)
    assert health.may_start("t", 5)
    assert not health.claim("t", 5)


def test_the_settings_of_a_route_go_before_its_own(health: Health) -> None:
    own = BreakerSettings(threshold=1, cool_down_s=2, max_open_s=5)
    health.failed("t", K.SERVER_ERROR, 0, settings=own)
    assert health.open_until("t") == 2
    health.failed("u", K.RATE_LIMITED, 0, 60, own)
    assert health.open_until("u") == 5


def test_changes_are_told_once_and_the_last_of_each_key(health: Health) -> None:
    assert health.changes() == ()
    fail(health, 0, times=3)
    fail(health, 1)
    health.failed("u", K.RATE_LIMITED, 1, retry_after_s=2)
    assert health.changes() == (Change("t", 11, K.SERVER_ERROR), Change("u", 3, K.RATE_LIMITED))
    assert health.changes() == ()
    health.succeeded("t", 11)
    assert health.changes() == (Change("t", None),)


def test_a_target_that_was_never_open_changes_nothing_by_answering(health: Health) -> None:
    fail(health, 0, times=2)
    health.succeeded("t", 1)
    health.succeeded("new", 1)
    assert health.changes() == ()


def test_what_other_processes_told_is_no_change_of_ours(health: Health) -> None:
    health.hold_open("t", 9, K.OVERLOADED)
    assert health.state("t", 8) is Breaker.OPEN
    assert health.why("t") is K.OVERLOADED
    health.closed_elsewhere("t")
    assert health.state("t", 8) is Breaker.CLOSED
    assert health.why("t") is None
    health.closed_elsewhere("t")
    assert health.changes() == ()


def test_one_that_another_process_opened_is_closed_by_a_probe_here(health: Health) -> None:
    health.hold_open("t", 9)
    assert health.claim("t", 9)
    health.succeeded("t", 10)
    assert health.changes() == (Change("t", None),)


def test_an_api_key_rests_at_its_first_failure(health: Health) -> None:
    health.rest("t#1", K.AUTH, 0, None)
    assert health.open_until("t#1") == 10
    assert health.why("t#1") is K.AUTH
    health.rest("t#1", K.RATE_LIMITED, 1, 30)
    assert health.open_until("t#1") == 31
    health.rest("t#1", K.RATE_LIMITED, 2, 1e9)
    assert health.open_until("t#1") == 102
    assert health.changes() == (Change("t#1", 102, K.RATE_LIMITED),)
