"""Topping up, calls at once, run trees and changed limits, over memory, SQLite and a real PostgreSQL."""

from __future__ import annotations

import pytest

from budgets import (
    AT_ONCE,
    ZERO,
    Amount,
    Bound,
    Counter,
    Expire,
    Expired,
    ExpiredHold,
    Held,
    Late,
    LedgerStore,
    Left,
    LimitBook,
    OnExceed,
    Refused,
    Renew,
    Renewed,
    RunRef,
    Settle,
    Settled,
    Subject,
    Take,
    TopUp,
    Unit,
    remaining,
)
from tests.contract.ledgers import ASKED, LEASE, NOW, ONE, bounds_of, hold, limit, used
from tests.contract.ledgers import store as store
from tests.contract.ledgers import watching as watching

pytest_plugins = ["tests.postgres"]

AT_WORK = Amount(requests=1, concurrency=1)
MORE = Amount(tokens=50)


def test_topping_up_raises_what_is_held_everywhere(store: LedgerStore) -> None:
    bounds = bounds_of(limit(tokens=1_000), limit("run", "run", tokens=200))
    store.apply([hold("a", bounds)], NOW)
    [held] = store.apply([TopUp("a", bounds, MORE)], NOW)
    assert held == Held((Left(Unit.TOKENS, "run", 200, 50, None),))
    assert [used(store, bound).held for bound in bounds] == [ASKED + MORE] * 2
    assert isinstance(store.apply([Settle("a", Amount(tokens=120))], NOW)[0], Settled)
    assert [used(store, bound) for bound in bounds] == [Counter(used=Amount(tokens=120))] * 2


def test_topping_up_is_refused_as_a_whole_and_leaves_the_hold_as_it_was(store: LedgerStore) -> None:
    bounds = bounds_of(limit(tokens=1_000), limit("run", "run", tokens=149))
    store.apply([hold("a", bounds)], NOW)
    [refused] = store.apply([TopUp("a", bounds, MORE)], NOW)
    assert refused == Refused("run", bounds[1].key, Unit.TOKENS, 149, 0, 100, 50, None)
    assert isinstance(refused, Refused)
    assert refused.busy
    assert [used(store, bound).held for bound in bounds] == [ASKED] * 2
    store.apply([Expire(LEASE)], LEASE)
    assert [used(store, bound) for bound in bounds] == [Counter(used=ONE)] * 2


def test_a_topped_up_hold_expires_for_its_floor_and_is_renewed_as_it_is(store: LedgerStore) -> None:
    bounds = bounds_of(limit(tokens=1_000))
    results = store.apply(
        [hold("a", bounds), TopUp("a", bounds, MORE), Renew(("a",), LEASE + 9), TopUp("a", bounds, MORE)], NOW
    )
    assert [type(result) for result in results] == [Held, Held, Renewed, Held]
    store.apply([Renew(("a",), LEASE + 10), TopUp("a", bounds, MORE)], NOW)
    assert used(store, bounds[0]).held == ASKED + MORE + MORE + MORE
    assert store.apply([Expire(LEASE + 9)], LEASE) == [Expired(())]
    assert store.apply([Expire(LEASE + 10)], LEASE) == [Expired((ExpiredHold("a", ONE),))]
    assert used(store, bounds[0]) == Counter(used=ONE)
    assert store.apply([TopUp("a", bounds, MORE), TopUp("never", bounds, MORE)], NOW) == [
        Late(ONE),
        Late(None),
    ]


def test_a_hold_is_topped_up_while_tool_calls_are_used_up(store: LedgerStore) -> None:
    bounds = bounds_of(limit(tokens=1_000, tool_calls=1))
    results = store.apply(
        [hold("a", bounds), Take("a", bounds, Amount(tool_calls=1)), TopUp("a", bounds, MORE)], NOW
    )
    assert isinstance(results[2], Held)
    assert isinstance(store.apply([hold("b", bounds)], NOW)[0], Refused)


def test_topping_up_under_other_bounds_is_an_error(store: LedgerStore) -> None:
    bounds = bounds_of(limit(tokens=1_000), limit("run", "run", tokens=200))
    store.apply([hold("a", bounds)], NOW)
    for others in ((), bounds[:1], bounds_of(limit(tokens=1_000), limit("run", "run", tokens=9), run="r2")):
        with pytest.raises(ValueError, match="hold a stands under other bounds"):
            store.apply([TopUp("a", others, MORE)], NOW)
    assert used(store, bounds[0]).held == ASKED


def test_calls_at_once_are_held_and_never_used_up(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=100), limit("daily", AT_ONCE, concurrency=2))
    first, second, third = store.apply([hold(id_, bounds, AT_WORK) for id_ in "abc"], NOW)
    assert isinstance(first, Held)
    assert isinstance(second, Held)
    left = (Left(Unit.REQUESTS, "daily", 100, 98, bounds[0].resets_us),)
    assert third == Refused("daily", bounds[1].key, Unit.CONCURRENCY, 2, 0, 2, 1, None, left)
    assert isinstance(third, Refused)
    assert third.busy
    store.apply([Settle("a", ONE)], NOW)
    assert isinstance(store.apply([hold("d", bounds, AT_WORK)], NOW)[0], Held)
    store.apply([Expire(LEASE)], LEASE)
    assert used(store, bounds[1]).held == ZERO
    assert used(store, bounds[1]).used.concurrency == 0
    assert used(store, bounds[0]).used.requests == 3


def test_calls_at_once_within_a_run_are_counted_for_each_run(store: LedgerStore) -> None:
    one = limit("run", "run", concurrency=1)
    for run in ("r1", "r2"):
        first, second = store.apply(
            [hold(f"{run}{id_}", bounds_of(one, run=run), AT_WORK) for id_ in "ab"], NOW
        )
        assert isinstance(first, Held)
        assert isinstance(second, Refused)
        assert second.busy


def test_of_equally_tight_limits_one_that_only_waits_for_others_is_named_last(store: LedgerStore) -> None:
    busy, spent = limit("busy", AT_ONCE, concurrency=1), limit("spent", "minute", requests=1)
    bounds = bounds_of(busy, spent)
    store.apply([hold("a", bounds_of(busy), AT_WORK)], NOW)
    store.apply([hold("b", bounds_of(spent), ONE), Settle("b", ONE)], NOW)
    [refused] = store.apply([hold("c", bounds, AT_WORK)], NOW)
    assert isinstance(refused, Refused)
    assert refused.limit_id == "spent"


def run_tree(*runs: tuple[str, str], **maximum: int) -> tuple[Bound, ...]:
    """Of the first (agent, run), below those that follow."""
    (agent, run), *above = runs
    ancestors = tuple(RunRef(agent, run) for agent, run in above)
    book = LimitBook([limit("per-run", "run", OnExceed.BLOCK, None, **maximum)])
    return book.bounds(Subject(agent=agent, run=run, ancestors=ancestors), NOW)


def test_a_childs_spend_counts_against_every_ancestor(store: LedgerStore) -> None:
    root, middle, leaf = ("lead", "root"), ("lead", "middle"), ("helper", "leaf")
    tree = run_tree(leaf, middle, root, requests=3)
    assert [bound.key for bound in tree] == [
        "per-run|agent=helper|run:leaf",
        "per-run|agent=lead|run:middle",
        "per-run|agent=lead|run:root",
    ]
    results = store.apply([hold("a", tree, ONE), hold("b", run_tree(root, requests=3), ONE)], NOW)
    assert all(isinstance(result, Held) for result in results)
    assert isinstance(store.apply([hold("c", run_tree(middle, root, requests=3), ONE)], NOW)[0], Held)
    [refused] = store.apply([hold("d", run_tree(("helper", "other"), root, requests=3), ONE)], NOW)
    assert isinstance(refused, Refused)
    assert refused.bound_key == "per-run|agent=lead|run:root"
    store.apply([Settle("a", ZERO)], NOW)
    assert [used(store, bound).held.requests for bound in tree] == [0, 1, 2]


def test_a_hold_counts_once_in_a_counter_that_comes_twice(store: LedgerStore) -> None:
    once = bounds_of(limit(requests=5))
    bounds = (*once, *bounds_of(limit(requests=2)), *once)
    assert isinstance(store.apply([hold("a", bounds, ONE)], NOW)[0], Held)
    assert used(store, once[0]) == Counter(held=ONE)
    store.apply([TopUp("a", bounds, ONE), Take("a", bounds, Amount(writes=1))], NOW)
    assert used(store, once[0]) == Counter(used=Amount(writes=1), held=ONE + ONE)
    [refused] = store.apply([hold("b", bounds, ONE)], NOW)
    assert isinstance(refused, Refused)
    assert refused.maximum == 2
    store.apply([Settle("a", ONE)], NOW)
    assert used(store, once[0]) == Counter(used=Amount(requests=1, writes=1))


@pytest.mark.parametrize("window", ["day", "24h", "run", "lifetime"])
def test_a_lowered_maximum_refuses_what_is_over_it_and_a_raised_one_lets_pass(
    store: LedgerStore, window: str
) -> None:
    def bounds(most: int) -> tuple[Bound, ...]:
        return bounds_of(limit("l", window, requests=most))

    store.apply([hold(f"a{n}", bounds(5), ONE) for n in range(4)], NOW)
    store.apply([Settle(f"a{n}", ONE) for n in range(3)], NOW)
    [refused] = store.apply([hold("b", bounds(2), ONE)], NOW)
    assert isinstance(refused, Refused)
    assert (refused.maximum, refused.used, refused.held) == (2, 3, 1)
    assert [left.left for left in refused.left] == [0]
    [left] = remaining(bounds(2), store.peek(bounds(2)[0].keys))
    assert (left.maximum, left.left) == (2, 0)
    assert isinstance(store.apply([hold("c", bounds(4), ONE)], NOW)[0], Refused)
    first, second = store.apply([hold("d", bounds(5), ONE), hold("e", bounds(5), ONE)], NOW)
    assert isinstance(first, Held)
    assert isinstance(second, Refused)
