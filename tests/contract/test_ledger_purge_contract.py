"""Counters of spans long ended are deleted, in steps, over a SQLite file and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from budgets import METADATA, Amount, Expire, Held, Settle, Settled, SqlLedger, SqlStore, ended_us
from tests.contract.ledgers import LEASE, NOW, ONE, bounds_of, hold, limit
from tests.contract.ledgers import url as url
from tests.ledger_engines import ledger_engine

pytest_plugins = ["tests.postgres"]

DAY = 86_400_000_000
SHORT = ("minute", "hour", "1m", "24h")
LONG = ("day", "week", "month", "run", "lifetime", "30d")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = ledger_engine(url)
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


def purge(engine: Engine, before_us: int, most: int) -> tuple[int, int]:
    """How many were deleted, in how many steps."""
    ledger, after, deleted, steps = SqlLedger(engine.dialect), "", 0, 0
    while True:
        with engine.begin() as conn:
            found = ledger.ended(conn, before_us, after, most)
            deleted += ledger.purge(conn, found.keys)
        steps, after = steps + 1, found.last
        if not after:
            return deleted, steps


def test_only_what_ended_long_ago_is_deleted_and_step_by_step(engine: Engine) -> None:
    store = SqlStore(engine)
    limits = [limit(window, window, requests=100) for window in (*SHORT, *LONG)]
    old, new = bounds_of(*limits), bounds_of(*limits, now_us=NOW + 3 * DAY)
    store.apply([hold("a", old, ONE), Settle("a", ONE), hold("b", new, ONE), Settle("b", ONE)], NOW)
    before = set(store.peek(key for bound in (*old, *new) for key in bound.keys))
    deleted, steps = purge(engine, NOW + 2 * DAY, most=4)
    left = set(store.peek(before))
    assert deleted == len(before - left)
    assert steps >= len(before) // 4
    assert {key.partition("|")[0] for key in before - left} == set(SHORT)
    assert all((end := ended_us(key)) is not None and end < NOW + 2 * DAY for key in before - left)
    assert {bound.key for bound in new} <= left
    assert {bound.key for bound in old if bound.limit.window.name in LONG} <= left
    assert purge(engine, NOW + 2 * DAY, most=1_000) == (0, 1)


def test_a_counter_in_which_something_is_held_stays_until_it_has_ended(engine: Engine) -> None:
    store = SqlStore(engine)
    bounds = bounds_of(limit(window="minute", requests=9))
    store.apply([hold("a", bounds, ONE)], NOW)
    assert purge(engine, NOW + DAY, most=10) == (0, 1)
    store.apply([Expire(LEASE)], LEASE)
    assert purge(engine, NOW + DAY, most=10) == (1, 1)


def test_what_was_deleted_begins_at_nothing_for_a_ledger_that_remembers_it(engine: Engine) -> None:
    store = SqlStore(engine)
    bounds = bounds_of(limit(window="minute", requests=1))
    store.apply([hold("a", bounds, ONE)], NOW)
    store.apply([Settle("a", ONE)], NOW)
    assert purge(engine, NOW + DAY, most=10) == (1, 1)
    assert isinstance(store.apply([hold("b", bounds, ONE)], NOW)[0], Held)
    assert isinstance(store.apply([Settle("b", Amount())], NOW)[0], Settled)
