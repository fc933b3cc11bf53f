"""The retry-and-fallback machine, as playbooks: what is asked, what came of it, where it goes next."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from routing.failures import FailureKind
from routing.health import BreakerSettings, Health
from routing.plan import Backoff, Bounds, Exhausted, Failed, Outcome, Plan, Stop, Succeeded, Try
from routing.targets import Route, RouteTable, Target, Timeouts

K = FailureKind


class Playbook:
    """Drives a plan on a clock of its own: every wait is taken, every outcome costs no time."""

    def __init__(
        self,
        *routes: Route,
        health: Health | None = None,
        deadline: float | None = None,
        bounds: Bounds | None = None,
        chance: Callable[[], float] = lambda: 0.0,
    ) -> None:
        resolved = RouteTable(routes).resolve(routes[0].name)
        assert resolved is not None
        self.now = 0.0
        self.health = health or Health(BreakerSettings(threshold=10))
        self.plan = Plan(
            resolved.chain, self.health, now=0.0, random=chance, deadline=deadline, bounds=bounds
        )
        self.waits: list[float] = []

    def goes_to(self, target: str) -> Playbook:
        step = self.plan.next(self.now)
        assert isinstance(step, Try), step
        assert step.target.id == target
        self.now += step.delay_s
        self.waits.append(step.delay_s)
        return self

    def ends(self, stop: Stop) -> Exhausted:
        step = self.plan.next(self.now)
        assert isinstance(step, Exhausted), step
        assert step.stop is stop
        return step

    def which(self, outcome: Outcome | FailureKind) -> Playbook:
        self.plan.report(Failed(outcome) if isinstance(outcome, FailureKind) else outcome, self.now)
        return self


def route(
    name: str, *ids: str, retries: int = 0, fallbacks: tuple[str, ...] = (), total_s: float = 600
) -> Route:
    targets = tuple(Target(i, "openai", "m") for i in ids)
    return Route(name, targets, retries=retries, fallbacks=fallbacks, timeouts=Timeouts(total_s=total_s))


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
    first = book.plan.next(0)
    book.which(K.DNS)
    second = book.plan.next(0)
    assert isinstance(first, Try)
    assert isinstance(second, Try)
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
    health = Health()
    health.hold_open("a", 5)
    Playbook(route("m", "a", "b"), health=health).goes_to("b")


def test_all_open_says_when_to_come_back() -> None:
    health = Health()
    health.hold_open("a", 5)
    health.hold_open("b", 3)
    ended = Playbook(route("m", "a", "b"), health=health).ends(Stop.OPEN)
    assert ended.retry_after_s == 3
    assert ended.failures == ()


def test_a_breaker_that_opens_ends_the_retries() -> None:
    health = Health(BreakerSettings(threshold=2))
    book = Playbook(route("m", "a", "b", retries=9), health=health)
    book.goes_to("a").which(K.SERVER_ERROR).goes_to("a").which(K.SERVER_ERROR).goes_to("b")


def test_success_closes_the_breaker() -> None:
    health = Health(BreakerSettings(threshold=2))
    book = Playbook(route("m", "a", retries=1), health=health)
    book.goes_to("a").which(K.SERVER_ERROR).goes_to("a").which(Succeeded())
    health.failed("a", K.SERVER_ERROR, book.now)
    assert health.available("a", book.now)


def test_no_wait_goes_past_the_deadline() -> None:
    bounds = Bounds(backoff=Backoff(base_s=10, max_s=10))
    book = Playbook(route("m", "a", "b", retries=3, total_s=5), bounds=bounds)
    book.goes_to("a").which(K.SERVER_ERROR).goes_to("b")
    assert book.now == 0


def test_the_deadline_ends_it() -> None:
    book = Playbook(route("m", "a", "b", total_s=600), deadline=4)
    step = book.plan.next(0)
    assert isinstance(step, Try)
    assert step.timeouts.total_s == 4
    book.now = 4
    book.which(K.IDLE_TIMEOUT).ends(Stop.DEADLINE)


def test_a_later_deadline_does_not_lengthen_the_routes() -> None:
    book = Playbook(route("m", "a", total_s=5), deadline=100)
    step = book.plan.next(0)
    assert isinstance(step, Try)
    assert step.timeouts.total_s == 5


def test_attempts_are_bounded_and_retries_leave_room_for_other_targets() -> None:
    book = Playbook(route("m", "a", "b", "c", retries=9), bounds=Bounds(max_attempts=4))
    book.goes_to("a").which(K.CUT).goes_to("a").which(K.CUT)
    book.goes_to("b").which(K.CUT).goes_to("c").which(K.CUT)
    book.ends(Stop.ATTEMPTS)


def test_calls_out_of_turn_are_bugs() -> None:
    book = Playbook(route("m", "a"))
    with pytest.raises(RuntimeError, match="call next first"):
        book.which(Succeeded())
    book.goes_to("a")
    with pytest.raises(RuntimeError, match="report the last try"):
        book.plan.next(0)
    book.which(Succeeded())
    with pytest.raises(RuntimeError, match="has succeeded"):
        book.plan.next(0)


def test_an_empty_chain_is_a_bug() -> None:
    with pytest.raises(ValueError, match="at least one leg"):
        Plan((), Health(), now=0, random=lambda: 0.0)
