"""Every ledger store, the limits on it, the holds: shared by the tests of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

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


class Watching(Protocol):
    def __call__(self, watched: LimitBook | None = None) -> LedgerStore: ...


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
def watching(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watching]:
    """A store that watches the limits it is given. Only the first one may be in memory."""
    if request.param == "memory":
        yield MemoryStore
        return
    chosen = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "postgresql":
        chosen = request.getfixturevalue("postgres_url")
    engine = ledger_engine(chosen)
    METADATA.create_all(engine)
    yield lambda watched=None: SqlStore(engine, watched)
    engine.dispose()


@pytest.fixture
def store(watching: Watching) -> LedgerStore:
    return watching()


def limit(
    id_: str = "daily",
    window: str = "day",
    on_exceed: OnExceed = OnExceed.BLOCK,
    warn_at: float | None = None,
    **maximum: int,
) -> Limit:
    most = {Unit(unit): figure for unit, figure in maximum.items()}
    return Limit(id_, Scope(agent="*"), window_named(window), most, on_exceed, warn_at=warn_at)


def bounds_of(*limits: Limit, agent: str = "bot", run: str = "r1", now_us: int = NOW) -> tuple[Bound, ...]:
    return LimitBook(limits).bounds(Subject(agent=agent, run=run), now_us)


def hold(id_: str, bounds: tuple[Bound, ...], amount: Amount = ASKED, floor: Amount = ONE) -> Hold:
    return Hold(id_, bounds, amount, floor, LEASE)


def used(store: LedgerStore, bound: Bound) -> Counter:
    return store.peek([bound.key]).get(bound.key, Counter())
