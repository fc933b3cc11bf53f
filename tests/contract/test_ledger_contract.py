"""What every ledger store does, over memory, a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from budgets import (
    TOMBSTONE_US,
    ZERO,
    Amount,
    Counter,
    Expire,
    Expired,
    ExpiredHold,
    Held,
    Late,
    LedgerStore,
    Left,
    OnExceed,
    Refused,
    Renew,
    Renewed,
    Settle,
    Settled,
    Take,
    Taken,
    Unit,
)
from tests.contract.ledgers import ASKED, LEASE, NOW, ONE, bounds_of, hold, limit, used
from tests.contract.ledgers import store as store
from tests.contract.ledgers import watching as watching

pytest_plugins = ["tests.postgres"]


def test_a_hold_is_set_aside_and_says_what_is_left(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10, tokens=1000))
    [result] = store.apply([hold("a", bounds)], NOW)
    resets = bounds[0].resets_us
    assert result == Held(
        (Left(Unit.REQUESTS, "daily", 10, 9, resets), Left(Unit.TOKENS, "daily", 1000, 900, resets))
    )
    assert used(store, bounds[0]) == Counter(held=ASKED)


def test_settling_replaces_the_hold_by_what_was_used(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10, tokens=1000), limit("run", "run", usd=900))
    store.apply([hold("a", bounds)], NOW)
    spent = Amount(micro_usd=300, tokens=70, requests=1)
    [result] = store.apply([Settle("a", spent)], NOW + 1)
    assert isinstance(result, Settled)
    assert [used(store, bound) for bound in bounds] == [Counter(used=spent)] * 2


def test_a_hold_may_be_settled_for_nothing(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=1))
    store.apply([hold("a", bounds)], NOW)
    store.apply([Settle("a", ZERO)], NOW)
    assert isinstance(store.apply([hold("b", bounds)], NOW)[0], Held)


def test_an_overrun_is_recorded_and_stops_the_next_call(store: LedgerStore) -> None:
    bounds = bounds_of(limit(tokens=120))
    store.apply([hold("a", bounds)], NOW)
    [settled] = store.apply([Settle("a", Amount(tokens=150))], NOW)
    assert isinstance(settled, Settled)
    [refused] = store.apply([hold("b", bounds, Amount(tokens=1), ZERO)], NOW)
    assert isinstance(refused, Refused)
    assert (refused.used, refused.held, refused.asked, refused.maximum) == (150, 0, 1, 120)


def test_nothing_is_held_anywhere_unless_everywhere(store: LedgerStore) -> None:
    bounds = bounds_of(
        limit(requests=5), limit("small", "month", requests=1), limit("run", "run", requests=5)
    )
    first, second = store.apply([hold("a", bounds), hold("b", bounds)], NOW)
    assert isinstance(first, Held)
    assert isinstance(second, Refused)
    assert second.limit_id == "small"
    assert [used(store, bound).held for bound in bounds] == [ASKED] * 3
    assert store.apply([Settle("b", ASKED)], NOW) == [Late(None)]


def test_the_tightest_limit_is_named(store: LedgerStore) -> None:
    bounds = bounds_of(limit("tokens", tokens=150), limit("dollars", usd=510), limit("calls", requests=1))
    store.apply([hold("a", bounds)], NOW)
    # 50 of 100 tokens are left, 10 of 500 micro-dollars, and none of 1 request.
    [refused] = store.apply([hold("b", bounds)], NOW)
    tokens = Left(Unit.TOKENS, "tokens", 150, 50, bounds[0].resets_us)
    left = (Left(Unit.REQUESTS, "calls", 1, 0, bounds[2].resets_us), tokens)
    assert refused == Refused("calls", bounds[2].key, Unit.REQUESTS, 1, 0, 1, 1, bounds[2].resets_us, left)
    two = bounds[:2]
    [refused] = store.apply([hold("c", two)], NOW)
    resets_us = bounds[1].resets_us
    assert refused == Refused("dollars", bounds[1].key, Unit.USD, 510, 0, 500, 500, resets_us, (tokens,))


def test_of_equally_tight_limits_the_last_to_reset_is_named(store: LedgerStore) -> None:
    limits = [limit("minute", "minute", requests=0), limit("month", "month", requests=0)]
    [refused] = store.apply([hold("a", bounds_of(*limits))], NOW)
    assert isinstance(refused, Refused)
    assert refused.limit_id == "month"
    [refused] = store.apply([hold("a", bounds_of(*limits, limit("ever", "lifetime", requests=0)))], NOW)
    assert isinstance(refused, Refused)
    assert refused.limit_id == "ever"


def test_a_changed_maximum_keeps_what_was_used(store: LedgerStore) -> None:
    before, after = bounds_of(limit(requests=2)), bounds_of(limit(requests=3))
    results = store.apply([hold("a", before), hold("b", before), hold("c", before)], NOW)
    assert isinstance(results[2], Refused)
    store.apply([Settle("a", ONE)], NOW)
    results = store.apply([hold("d", after), hold("e", after)], NOW)
    assert isinstance(results[0], Held)
    assert isinstance(results[1], Refused)
    assert (results[1].used, results[1].held) == (1, 2)


def test_a_warning_limit_counts_and_lets_pass(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=0, on_exceed=OnExceed.WARN))
    assert store.apply([hold("a", bounds)], NOW) == [Held(())]
    assert used(store, bounds[0]).held == ASKED


def test_a_hold_that_nobody_settles_expires_once_and_charges_its_floor(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10, tokens=1000))
    floor = Amount(tokens=40, requests=1)
    store.apply([hold("a", bounds, floor=floor)], NOW)
    assert store.apply([Expire(LEASE - 1)], LEASE - 1) == [Expired(())]
    assert store.apply([Expire(LEASE)], LEASE) == [Expired((ExpiredHold("a", floor),))]
    assert store.apply([Expire(LEASE + 1)], LEASE + 1) == [Expired(())]
    assert used(store, bounds[0]) == Counter(used=floor)


def test_a_late_settlement_learns_what_was_charged_and_changes_nothing(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10))
    store.apply([hold("a", bounds)], NOW)
    store.apply([Expire(LEASE)], LEASE)
    assert store.apply([Settle("a", ASKED)] * 2, LEASE + 1) == [Late(ONE)] * 2
    assert used(store, bounds[0]) == Counter(used=ONE)


def test_a_tombstone_is_forgotten_in_time(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10))
    store.apply([hold("a", bounds)], NOW)
    store.apply([Expire(LEASE)], LEASE)
    later = LEASE + TOMBSTONE_US
    assert store.apply([Expire(later - 1), Settle("a", ONE)], later - 1) == [Expired(()), Late(ONE)]
    assert store.apply([Expire(later), Settle("a", ONE)], later) == [Expired(()), Late(None)]
    assert store.apply([Settle("a", ONE)], later) == [Late(None)]
    assert used(store, bounds[0]) == Counter(used=ONE)


def test_settling_twice_charges_once(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10))
    store.apply([hold("a", bounds)], NOW)
    results = store.apply([Settle("a", ONE), Settle("a", ONE)], NOW)
    assert isinstance(results[0], Settled)
    assert results[1] == Late(None)
    assert store.apply([Settle("a", ONE)], NOW) == [Late(None)]
    assert used(store, bounds[0]) == Counter(used=ONE)


def test_a_renewed_hold_lives_on_and_a_lease_is_never_shortened(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10))
    store.apply([hold("a", bounds), hold("b", bounds)], NOW)
    assert store.apply([Renew(("a", "gone"), LEASE + 50)], NOW) == [Renewed(("gone",))]
    assert store.apply([Renew(("a",), LEASE)], NOW) == [Renewed(())]
    assert store.apply([Expire(LEASE + 49)], LEASE) == [Expired((ExpiredHold("b", ONE),))]
    assert store.apply([Renew(("a", "b"), LEASE + 99)], LEASE) == [Renewed(("b",))]
    assert store.apply([Expire(LEASE + 98)], LEASE) == [Expired(())]


def test_one_batch_is_done_in_order(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=1))
    results = store.apply(
        [
            hold("a", bounds),
            hold("b", bounds),
            Settle("a", ZERO),
            hold("c", bounds),
            Renew(("c",), LEASE + 5),
            Expire(LEASE + 4),
            Expire(LEASE + 5),
            Settle("c", ONE),
        ],
        NOW,
    )
    kinds = [type(result) for result in results]
    assert kinds == [Held, Refused, Settled, Held, Renewed, Expired, Expired, Late]
    assert results[5:] == [Expired(()), Expired((ExpiredHold("c", ONE),)), Late(ONE)]
    assert store.apply([Settle("c", ONE)], NOW) == [Late(ONE)]
    assert used(store, bounds[0]) == Counter(used=ONE)


def test_an_expiry_before_a_settlement_in_one_batch_wins(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10))
    store.apply([hold("a", bounds), hold("b", bounds)], NOW)
    results = store.apply([Settle("a", ONE), Expire(LEASE), Settle("b", ASKED)], LEASE)
    assert isinstance(results[0], Settled)
    assert results[1:] == [Expired((ExpiredHold("b", ONE),)), Late(ONE)]


def test_taking_is_checked_against_all_limits_at_once(store: LedgerStore) -> None:
    bounds = bounds_of(limit(tool_calls=5, writes=5), limit("run", "run", writes=1))
    write = Amount(tool_calls=1, writes=1)
    first, second = store.apply([Take("c1", bounds, write), Take("c1", bounds, write)], NOW)
    assert first == Taken()
    assert second == Refused("run", bounds[1].key, Unit.WRITES, 1, 1, 0, 1, None)
    assert used(store, bounds[0]) == Counter(used=write)
    assert isinstance(store.apply([Take("c1", bounds, Amount(tool_calls=1))], NOW)[0], Taken)


def test_no_tool_calls_left_refuses_the_next_hold_but_a_maximum_of_none_does_not(store: LedgerStore) -> None:
    bounds = bounds_of(limit(tool_calls=1, writes=0))
    assert isinstance(store.apply([hold("a", bounds)], NOW)[0], Held)
    store.apply([Take("a", bounds, Amount(tool_calls=1))], NOW)
    [refused] = store.apply([hold("b", bounds)], NOW)
    assert refused == Refused("daily", bounds[0].key, Unit.TOOL_CALLS, 1, 1, 0, 0, bounds[0].resets_us)


def test_a_call_that_no_limit_binds_is_still_held_and_settled_once(store: LedgerStore) -> None:
    assert store.apply([hold("a", ())], NOW) == [Held(())]
    assert store.apply([Settle("a", ASKED)] * 2, NOW) == [Settled(), Late(None)]
    store.apply([hold("b", ())], NOW)
    assert store.apply([Expire(LEASE)], LEASE) == [Expired((ExpiredHold("b", ONE),))]


def test_a_hold_id_can_not_be_used_again_and_the_failed_batch_leaves_nothing(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10))
    store.apply([hold("a", bounds)], NOW)
    with pytest.raises((ValueError, IntegrityError)):
        store.apply([hold("b", bounds), hold("a", bounds)], NOW)
    assert used(store, bounds[0]) == Counter(held=ASKED)
    assert store.apply([Settle("b", ONE)], NOW) == [Late(None)]


def test_keys_hold_any_text(store: LedgerStore) -> None:
    bounds = bounds_of(
        limit(requests=1), limit("run", "run", requests=1), agent="b|o%t", run="\x00\ud800é'\""
    )
    assert isinstance(store.apply([hold("a", bounds)], NOW)[0], Held)
    assert isinstance(store.apply([Settle("a", ONE)], NOW)[0], Settled)
    assert set(store.peek([bound.key for bound in bounds])) == {bound.key for bound in bounds}
