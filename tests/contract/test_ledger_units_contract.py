"""Limits for exactly 100 of each unit, asked for by threads and by processes at once: exactly 100 come."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.synchronize import Barrier as ProcessBarrier
from threading import Barrier

import pytest

from budgets import (
    AT_ONCE,
    METADATA,
    ZERO,
    Amount,
    Bound,
    Held,
    LedgerStore,
    Op,
    SqlStore,
    Take,
    Taken,
    Unit,
    counted,
)
from budgets.amounts import AT_GATE
from tests.contract.ledgers import NOW, bounds_of, hold, limit
from tests.contract.ledgers import store as store
from tests.contract.ledgers import url as url
from tests.contract.ledgers import watching as watching
from tests.ledger_engines import ledger_engine

pytest_plugins = ["tests.postgres"]

MOST = 100
WINDOWS = {"calendar": "day", "rolling": "24h"}


def limited(unit: Unit, window: str) -> tuple[Bound, ...]:
    most = {unit.value: MOST}
    chosen = AT_ONCE if unit is Unit.CONCURRENCY else window
    return bounds_of(limit("l", chosen, **most), limit("run", "run", **{unit.value: MOST + 50}))  # pyright: ignore[reportArgumentType]


def asking(unit: Unit, id_: str, bounds: tuple[Bound, ...]) -> Op:
    one = Amount(**{unit.field: 1})
    return Take(id_, bounds, one) if unit in AT_GATE else hold(id_, bounds, one, ZERO)


def spent(store: LedgerStore, bound: Bound, unit: Unit) -> int:
    counter = counted(bound, store.peek(bound.keys))
    return (counter.used + counter.held).get(unit)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("unit", list(Unit))
def test_threads_get_exactly_as_many_as_there_are(store: LedgerStore, unit: Unit, window: str) -> None:
    bounds = limited(unit, WINDOWS[window])
    ready = Barrier(15)

    def work(worker: int) -> int:
        ready.wait()
        ops = (asking(unit, f"{worker}-{turn}", bounds) for turn in range(10))
        return sum(isinstance(store.apply([op], NOW)[0], Held | Taken) for op in ops)

    with ThreadPoolExecutor(15) as pool:
        assert sum(pool.map(work, range(15))) == MOST
    assert spent(store, bounds[0], unit) == MOST


_together: ProcessBarrier | None = None


def _join(barrier: ProcessBarrier) -> None:
    global _together
    _together = barrier


def _ask(url: str, name: str, unit: str, window: str) -> int:
    """Runs in a process of its own: how many of 80 were admitted, in batches of 4."""
    assert _together is not None
    engine = ledger_engine(url)
    store = SqlStore(engine)
    bounds = limited(Unit(unit), window)
    _together.wait()
    got = 0
    for turn in range(20):
        ops = [asking(Unit(unit), f"{name}-{turn}-{n}", bounds) for n in range(4)]
        got += sum(isinstance(result, Held | Taken) for result in store.apply(ops, NOW))
    engine.dispose()
    return got


def test_processes_get_exactly_as_many_as_there_are_of_every_unit(url: str) -> None:
    engine = ledger_engine(url)
    METADATA.create_all(engine)
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=_join, initargs=(barrier,)) as pool:
        for unit in Unit:
            for window in WINDOWS.values():
                with engine.begin() as conn:
                    for table in METADATA.sorted_tables:
                        conn.execute(table.delete())
                got = pool.map(_ask, [url] * 2, ["a", "b"], [unit.value] * 2, [window] * 2)
                assert sum(got) == MOST, (unit, window)
                assert spent(SqlStore(engine), limited(unit, window)[0], unit) == MOST
    engine.dispose()
