"""Where a call goes whose prompt is too long or filtered, whose reply was cut, or whose target is silent."""

from __future__ import annotations

import pytest

from routing.bounds import Bounds
from routing.failures import FailureKind
from routing.fleet import Demand, Fleet
from routing.plan import Failed, Stop, Succeeded
from routing.targets import Hedge, Limits, Route
from tests.unit.routing_playbook import Playbook, route, target

K = FailureKind
WINDOWS = {"small": 100, "large": 1_000}


# Prompts that are too long

MODELS = (
    route("m", target("a", model="small"), context_fallbacks=("n", "o"), fallbacks=("p", "q")),
    route("n", target("b", model="large")),
    route("o", target("c", model="unknown")),
    route("p", target("d", model="small")),
    route("q", target("e", model="large")),
)


def counted(tokens: int, *routes: Route) -> Playbook:
    return Playbook(*(routes or MODELS), demand=Demand(tokens=tokens), windows=WINDOWS)


def ways(book: Playbook, *ids: str) -> None:
    """All that is asked where every target fails."""
    for id_ in ids:
        book.goes_to(id_).which(K.TLS)
    book.ends(Stop.SPENT)


def test_a_prompt_that_fits_goes_to_the_model_asked_for_and_its_fallbacks() -> None:
    ways(counted(100), "a", "d", "e")


def test_one_that_does_not_goes_to_a_larger_window_without_asking_and_to_fallbacks_that_take_it() -> None:
    ways(counted(101), "b", "c", "e")


def test_targets_that_are_too_small_for_it_are_left_out() -> None:
    ways(counted(5_000), "c")


def test_where_nothing_is_known_to_be_large_enough_all_are_asked() -> None:
    ways(
        counted(5_000, MODELS[0], MODELS[1], route("o", target("c", model="large")), *MODELS[3:]),
        "a",
        "d",
        "e",
    )


def test_a_larger_target_of_the_model_itself_goes_before_its_context_fallbacks() -> None:
    both = (target("a", model="small"), target("f", model="large"))
    ways(counted(500, route("m", *both, context_fallbacks=("n",)), MODELS[1]), "f")


def test_uncounted_prompts_go_where_they_were_sent() -> None:
    ways(counted(0), "a", "d", "e")


def test_a_vendor_that_finds_it_too_long_sends_it_on_to_the_larger_ones_alone() -> None:
    book = counted(0).goes_to("a").which(K.CONTEXT_LENGTH)
    ways(book, "b", "c")


def test_larger_ones_that_find_it_too_long_send_it_on_too() -> None:
    book = counted(0).goes_to("a").which(K.CONTEXT_LENGTH).goes_to("b").which(K.CONTEXT_LENGTH)
    ended = book.goes_to("c").which(K.CONTEXT_LENGTH).ends(Stop.SPENT)
    assert [failure.failed.kind for failure in ended.failures] == [K.CONTEXT_LENGTH] * 3


def test_larger_ones_chosen_by_counted_tokens_send_it_on_too() -> None:
    counted(500).goes_to("b").which(K.CONTEXT_LENGTH).goes_to("c")


def test_a_filter_ends_a_call_that_was_sent_on_for_its_length() -> None:
    counted(0).goes_to("a").which(K.CONTEXT_LENGTH).goes_to("b").which(K.CONTENT_FILTER).ends(Stop.FINAL)


@pytest.mark.parametrize("kind", [K.CONTEXT_LENGTH, K.CONTENT_FILTER])
def test_without_models_for_it_the_call_ends(kind: FailureKind) -> None:
    book = Playbook(route("m", "a", "b", retries=3, fallbacks=("n",)), route("n", "c"))
    book.goes_to("a").which(kind).ends(Stop.FINAL)


def test_a_fallbacks_own_larger_models_are_asked() -> None:
    routes = route("m", "a", fallbacks=("n",)), route("n", "b", context_fallbacks=("o",)), route("o", "c")
    book = Playbook(*routes).goes_to("a").which(K.TLS).goes_to("b").which(K.CONTEXT_LENGTH)
    ways(book, "c")


def test_larger_models_in_a_cycle_end() -> None:
    routes = route("m", "a", context_fallbacks=("n",)), route("n", "b", context_fallbacks=("m", "n"))
    book = Playbook(*routes).goes_to("a").which(K.CONTEXT_LENGTH).goes_to("b").which(K.CONTEXT_LENGTH)
    book.ends(Stop.SPENT)


# Prompts that are filtered


def test_a_filtered_request_goes_to_the_models_for_it_alone() -> None:
    routes = (
        route("m", "a", "b", content_fallbacks=("n", "o"), fallbacks=("p",)),
        route("n", "c"),
        route("o", "d"),
        route("p", "e"),
    )
    book = Playbook(*routes).goes_to("a").which(K.CONTENT_FILTER).goes_to("c").which(K.CONTENT_FILTER)
    ways(book, "d")


def test_their_targets_are_retried_as_their_own_routes_say() -> None:
    routes = route("m", "a", content_fallbacks=("n",)), route("n", "b", retries=1)
    book = Playbook(*routes).goes_to("a").which(K.CONTENT_FILTER).goes_to("b").which(K.CUT).goes_to("b")
    book.which(K.CUT).ends(Stop.SPENT)


# Replies that were cut

CUT = Failed(K.CUT, released=True, goes_on=True)


def test_a_cut_reply_goes_on_at_the_next_target_and_never_at_the_same() -> None:
    book = Playbook(route("m", "a", "b", retries=3, fallbacks=("n",)), route("n", "c"))
    book.goes_to("a").which(CUT).goes_to("b").which(CUT).goes_to("c").which(Succeeded())
    assert book.waits == [0, 0, 0]


def test_who_was_to_go_on_and_gave_nothing_leaves_it_to_the_next() -> None:
    book = Playbook(route("m", "a", "b", "c", retries=3)).goes_to("a").which(CUT)
    book.goes_to("b").which(Failed(K.BAD_REQUEST, goes_on=True)).goes_to("c")


@pytest.mark.parametrize("released", [True, False])
def test_what_was_released_and_cannot_be_gone_on_from_ends_the_call(released: bool) -> None:
    book = Playbook(route("m", "a", "b", "c")).goes_to("a").which(CUT)
    book.goes_to("b").which(Failed(K.CUT, released=released)).ends(Stop.RELEASED)


def test_nobody_left_to_go_on() -> None:
    Playbook(route("m", "a", retries=3)).goes_to("a").which(CUT).ends(Stop.SPENT)


def test_going_on_needs_something_to_go_on_from() -> None:
    book = Playbook(route("m", "a", "b")).goes_to("a").which(Failed(K.BAD_REQUEST, goes_on=True))
    book.ends(Stop.FINAL)


# Hedging

HEDGED = Hedge(after_s=0.5)


def test_a_second_target_is_started_beside_a_silent_one_once() -> None:
    book = Playbook(route("m", "a", "b", "c", hedge=HEDGED)).goes_to("a")
    assert book.step.hedge_after_s == 0.5
    second = book.hedges_to("b")
    assert (second.attempt, second.delay_s, second.hedge_after_s) == (2, 0, None)
    assert book.plan.hedge(book.now) is None
    book.which(Succeeded(), second).which(K.SUPERSEDED)
    with pytest.raises(RuntimeError, match="has succeeded"):
        book.plan.next(book.now)


def test_a_later_try_is_not_hedged_again() -> None:
    book = Playbook(route("m", "a", "b", "c", "d", hedge=HEDGED)).goes_to("a")
    second = book.hedges_to("b")
    book.which(K.TLS).which(K.TLS, second).goes_to("c")
    assert book.step.hedge_after_s is None
    assert book.plan.hedge(book.now) is None


def test_the_own_p95_is_waited_for_once_it_is_known() -> None:
    fleet = Fleet()
    for seconds in range(1, 20):
        fleet.traffic.load("a").streamed.heard(seconds, 0)
    routes = route("m", "a", "b", hedge=Hedge())
    streamed = Demand(stream=True)
    assert Playbook(routes, fleet=fleet, demand=streamed).goes_to("a").step.hedge_after_s is None
    fleet.traffic.load("a").streamed.heard(20, 0)
    assert Playbook(routes, fleet=fleet, demand=streamed).goes_to("a").step.hedge_after_s == 19
    assert Playbook(routes, fleet=fleet).goes_to("a").step.hedge_after_s is None


def test_without_hedging_no_time_is_told() -> None:
    assert Playbook(route("m", "a", "b")).goes_to("a").step.hedge_after_s is None


def test_no_second_target_no_hedge() -> None:
    book = Playbook(route("m", "a", hedge=HEDGED)).goes_to("a")
    assert book.plan.hedge(0) is None
    book.which(K.TLS).ends(Stop.SPENT)


def test_a_second_target_that_is_open_or_full_is_no_hedge() -> None:
    fleet = Fleet()
    fleet.health.hold_open("b", 9)
    full = target("c", Limits(concurrency=1))
    fleet.traffic.began("c", 0, 0)
    book = Playbook(route("m", "a", "b", full, hedge=HEDGED), fleet=fleet).goes_to("a")
    assert book.plan.hedge(0) is None


def test_a_hedge_is_a_try() -> None:
    book = Playbook(route("m", "a", "b", hedge=HEDGED), bounds=Bounds(max_attempts=1)).goes_to("a")
    assert book.plan.hedge(0) is None


def test_no_hedge_after_the_deadline() -> None:
    book = Playbook(route("m", "a", "b", hedge=HEDGED, total_s=5)).goes_to("a")
    assert book.plan.hedge(5) is None


def test_no_hedge_beside_nothing() -> None:
    assert Playbook(route("m", "a", "b", hedge=HEDGED)).plan.hedge(0) is None


def test_one_that_came_second_says_nothing_of_its_target_but_that_it_is_slow() -> None:
    book = Playbook(route("m", "a", "b", hedge=HEDGED)).goes_to("a")
    second = book.hedges_to("b")
    book.now = 3
    book.which(K.SUPERSEDED).which(Succeeded(), second)
    load = book.fleet.traffic.load("a")
    assert (load.in_flight, load.failures, load.whole.mean(3)) == (0, 0, 3)
    assert book.fleet.health.why("a") is None


def test_a_superseded_probe_frees_its_place() -> None:
    fleet = Fleet()
    fleet.health.hold_open("a", 0)
    book = Playbook(route("m", "a", "b", hedge=HEDGED), fleet=fleet).goes_to("a")
    assert not fleet.health.available("a", 0)
    second = book.hedges_to("b")
    book.which(K.SUPERSEDED).which(Succeeded(), second)
    assert fleet.health.available("a", 0)


def test_where_the_second_fails_the_first_goes_on_alone() -> None:
    book = Playbook(route("m", "a", "b", hedge=HEDGED)).goes_to("a")
    second = book.hedges_to("b")
    book.which(K.SERVER_ERROR, second)
    with pytest.raises(RuntimeError, match="report the last try"):
        book.plan.next(0)
    book.which(Succeeded())


def test_where_both_fail_the_next_is_asked() -> None:
    book = Playbook(route("m", "a", "b", "c", hedge=HEDGED)).goes_to("a")
    second = book.hedges_to("b")
    book.which(K.FIRST_EVENT_TIMEOUT).which(K.TLS, second).goes_to("c").which(K.TLS)
    ended = book.ends(Stop.SPENT)
    assert [failure.target.id for failure in ended.failures] == ["a", "b", "c"]


@pytest.mark.parametrize("first", [True, False])
def test_where_one_of_two_failed_for_good_the_call_ends(first: bool) -> None:
    book = Playbook(route("m", "a", "b", "c", hedge=HEDGED)).goes_to("a")
    second = book.hedges_to("b")
    book.which(K.BAD_REQUEST if first else K.TLS)
    book.which(K.TLS if first else K.BAD_REQUEST, second).ends(Stop.FINAL)


@pytest.mark.parametrize("first", [True, False])
def test_nothing_follows_what_one_of_two_released(first: bool) -> None:
    book = Playbook(route("m", "a", "b", "c", hedge=HEDGED)).goes_to("a")
    second = book.hedges_to("b")
    book.which(Failed(K.CUT, released=first))
    book.which(Failed(K.CUT, released=not first), second).ends(Stop.RELEASED)


@pytest.mark.parametrize("superseded_last", [True, False])
def test_of_two_the_one_that_was_not_called_off_decides(superseded_last: bool) -> None:
    book = Playbook(route("m", "a", "b", "c", hedge=HEDGED)).goes_to("a")
    first, second = book.step, book.hedges_to("b")
    ends = [(first, CUT), (second, Failed(K.SUPERSEDED))]
    for step, outcome in ends if superseded_last else reversed(ends):
        book.which(outcome, step)
    book.goes_to("c")


def test_what_one_of_two_released_goes_on_at_a_third() -> None:
    book = Playbook(route("m", "a", "b", "c", hedge=HEDGED, retries=1)).goes_to("a")
    second = book.hedges_to("b")
    book.which(K.CONFLICT).which(CUT, second).goes_to("c")


def test_retries_of_two_are_counted_apart() -> None:
    book = Playbook(route("m", "a", "b", hedge=HEDGED, retries=1)).goes_to("a")
    book.which(K.CONFLICT).goes_to("a")
    second = book.hedges_to("b")
    book.which(K.TLS, second).which(K.CONFLICT).ends(Stop.SPENT)


def test_after_both_failed_the_last_is_retried() -> None:
    book = Playbook(route("m", "a", "b", hedge=HEDGED, retries=1)).goes_to("a")
    second = book.hedges_to("b")
    book.which(K.CONFLICT, second).which(K.CONFLICT).goes_to("a").which(K.CONFLICT).ends(Stop.SPENT)
