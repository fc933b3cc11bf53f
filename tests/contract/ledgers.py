"""Every ledger store, the limits on it, the holds: shared by the tests of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from budgets import (
    METADATA,
    Amount,
    Bound,
    Counter,
    Hold,
    LedgerStore,
    Limit,
    LimitBook,
    MemoryStore,
    OnExceed,
    Scope,
    SqlStore,
    Subject,
    Unit,
    window_named,
)
from tests.ledger_engines import ledger_engine

NOW = 1_800_000_000_000_000
LEASE = NOW + 30_000_000
ONE = Amount(requests=1)
ASKED = Amount(micro_usd=500, tokens=100, requests=1)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LedgerStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    chosen = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "postgresql":
        chosen = request.getfixturevalue("postgres_url")
    engine = ledger_engine(chosen)
    METADATA.create_all(engine)
    yield SqlStore(engine)
    engine.dispose()


def limit(id_: str = "daily", window: str = "day", on_exceed=OnExceed.BLOCK, **maximum: int) -> Limit:
    return Limit(
        id_, Scope(agent="*"), window_named(window), {Unit(u): m for u, m in maximum.items()}, on_exceed
    )


def bounds_of(*limits: Limit, agent: str = "bot", run: str = "r1") -> tuple[Bound, ...]:
    return LimitBook(limits).bounds(Subject(agent=agent, run=run), NOW)


def hold(id_: str, bounds: tuple[Bound, ...], amount: Amount = ASKED, floor: Amount = ONE) -> Hold:
    return Hold(id_, bounds, amount, floor, LEASE)


def used(store: LedgerStore, bound: Bound) -> Counter:
    return store.peek([bound.key]).get(bound.key, Counter())
