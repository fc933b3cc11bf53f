"""What an expired hold charged is put right once, by whoever comes first; over every ledger store."""

from __future__ import annotations

from budgets import (
    ZERO,
    Amount,
    Correct,
    Counter,
    Expire,
    Late,
    LedgerStore,
    Settle,
    Settled,
)
from tests.contract.ledgers import ASKED, LEASE, NOW, ONE, bounds_of, hold, limit, used
from tests.contract.ledgers import store as store
from tests.contract.ledgers import watching as watching

pytest_plugins = ["tests.postgres"]

SPENT = Amount(micro_usd=300, tokens=70, requests=1)


def test_a_late_call_is_charged_what_it_used(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10, tokens=1000), limit("run", "run", usd=900))
    store.apply([hold("a", bounds)], NOW)
    store.apply([Expire(LEASE)], LEASE)
    assert [used(store, bound) for bound in bounds] == [Counter(used=ONE)] * 2
    assert store.apply([Settle("a", SPENT)], LEASE + 1) == [Late(ONE)]
    assert store.apply([Correct("a", SPENT)] * 2, LEASE + 2) == [Settled(), Late(None)]
    assert [used(store, bound) for bound in bounds] == [Counter(used=SPENT)] * 2
    assert store.apply([Settle("a", SPENT)], LEASE + 3) == [Late(None)]


def test_less_than_the_floor_may_have_been_used(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10))
    store.apply([hold("a", bounds)], NOW)
    store.apply([Expire(LEASE), Correct("a", ZERO)], LEASE)
    assert used(store, bounds[0]).used == ZERO


def test_what_expiry_charged_may_stand(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10))
    store.apply([hold("a", bounds)], NOW)
    assert store.apply([Expire(LEASE), Correct("a", None)], LEASE)[1] == Settled()
    assert used(store, bounds[0]) == Counter(used=ONE)
    assert store.apply([Correct("a", SPENT)], LEASE + 1) == [Late(None)]
    assert used(store, bounds[0]) == Counter(used=ONE)


def test_a_hold_that_stands_is_not_corrected(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10))
    store.apply([hold("a", bounds)], NOW)
    assert store.apply([Correct("a", SPENT), Correct("b", SPENT)], NOW + 1) == [Late(None)] * 2
    assert used(store, bounds[0]) == Counter(held=ASKED)
    assert store.apply([Settle("a", SPENT)], NOW + 2) == [Settled()]
