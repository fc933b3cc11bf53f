"""Holds from many threads, processes and ledgers at once: limits hold and no use is lost."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.synchronize import Barrier as ProcessBarrier
from threading import Barrier

import pytest

from budgets import (
    METADATA,
    ZERO,
    Expire,
    Held,
    LedgerStore,
    Refused,
    Renew,
    Result,
    Settle,
    Settled,
    SqlLedger,
    SqlStore,
)
from tests.contract.ledgers import LEASE, NOW, ONE, bounds_of, hold, limit, used
from tests.contract.ledgers import store as store
from tests.contract.ledgers import url as url
from tests.contract.ledgers import watching as watching
from tests.ledger_engines import ledger_engine

pytest_plugins = ["tests.postgres"]


def test_fifty_threads_get_exactly_ten(store: LedgerStore) -> None:
    bounds = bounds_of(limit(requests=10), limit("run", "run", requests=40))
    ready = Barrier(50)

    def call(number: int) -> bool:
        ready.wait()
        order = bounds if number % 2 else bounds[::-1]
        return isinstance(store.apply([hold(f"h{number}", order)], NOW)[0], Held)

    with ThreadPoolExecutor(50) as pool:
        admitted = sum(pool.map(call, range(50)))
    assert admitted == 10
    assert used(store, bounds[0]).held.requests == 10


_together: ProcessBarrier | None = None


def _join(barrier: ProcessBarrier) -> None:
    global _together
    _together = barrier


def _many_calls(url: str, name: str) -> int:
    """Runs in a process of its own: how many of 30 holds were admitted."""
    assert _together is not None
    engine = ledger_engine(url)
    store = SqlStore(engine)
    bounds = bounds_of(limit(requests=10), limit("run", "run", requests=40))
    _together.wait()
    admitted = 0
    for number in range(30):
        first, *_ = store.apply([hold(f"{name}{number}", bounds), Expire(NOW)], NOW)
        admitted += isinstance(first, Held)
    engine.dispose()
    return admitted


def test_two_processes_on_one_database_get_exactly_ten(url: str) -> None:
    engine = ledger_engine(url)  # also puts a SQLite file in WAL mode, which two connections can't do at once
    METADATA.create_all(engine)
    engine.dispose()
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=_join, initargs=(barrier,)) as pool:
        assert sum(pool.map(_many_calls, [url, url], ["a", "b"])) == 10


def test_holds_settlements_renewals_and_expiries_at_once_lose_nothing(url: str) -> None:
    engine = ledger_engine(url)
    METADATA.create_all(engine)
    stores = [SqlStore(engine) for _ in range(4)]
    limits = [
        limit(requests=10**6),
        limit("run", "run", requests=10**6),
        limit("ever", "lifetime", tokens=10**6),
    ]
    runs = [bounds_of(*limits, run=f"r{n}") for n in range(6)]
    ready = Barrier(4)

    def work(worker: int) -> int:
        ready.wait()
        settled = 0
        for turn in range(15):
            mine = [(f"{worker}-{turn}-{n}", runs[(n * (worker + 1) + turn) % 6]) for n in range(5)]
            stores[worker].apply([hold(id_, bounds) for id_, bounds in mine], NOW)
            stores[worker].apply([Renew(tuple(id_ for id_, _ in mine[::-1]), LEASE), Expire(NOW)], NOW)
            ops = [Settle(id_, ONE) for id_, _ in mine[:: (-1) ** worker]]
            settled += sum(isinstance(r, Settled) for r in stores[worker].apply([*ops, Expire(NOW)], NOW))
        return settled

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 300
    every = {bound.key for bounds in runs for bound in bounds}
    counters = stores[0].peek(every)
    engine.dispose()
    assert counters.keys() == every
    assert all(counter.held == ZERO for counter in counters.values())
    assert counters[runs[0][0].key].used.requests == 300
    assert sum(counters[bounds[1].key].used.requests for bounds in runs) == 300


def test_two_ledgers_that_remember_a_rolled_back_counter_still_wait_for_each_other(url: str) -> None:
    engine = ledger_engine(url)
    METADATA.create_all(engine)
    bounds = bounds_of(limit(requests=1))
    ledgers = [SqlLedger(engine.dialect) for _ in range(2)]
    for ledger in ledgers:
        with engine.connect() as conn:
            for id_ in "ab":
                ledger.apply(conn, [hold(id_, bounds)], NOW)
            conn.rollback()

    def second() -> Result:
        with engine.begin() as conn:
            return ledgers[1].apply(conn, [hold("d", bounds)], NOW)[0]

    with ThreadPoolExecutor(1) as pool, engine.connect() as conn:
        assert isinstance(ledgers[0].apply(conn, [hold("c", bounds)], NOW)[0], Held)
        waiting = pool.submit(second)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.15)
        conn.commit()
        assert isinstance(waiting.result(), Refused)
    engine.dispose()
