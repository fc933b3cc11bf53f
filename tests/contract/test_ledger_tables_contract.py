"""The ledger's tables, and what becomes of rows that vanish, over a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, delete, inspect

from budgets import METADATA, Counter, LedgerBroken, Settle, Settled, SqlLedger
from budgets.sql_tables import TABLES
from tests.contract.ledgers import ASKED, NOW, ONE, bounds_of, hold, limit
from tests.contract.ledgers import url as url
from tests.ledger_engines import ledger_engine

pytest_plugins = ["tests.postgres"]


def test_a_rolled_back_counter_is_created_again(url: str) -> None:
    engine = ledger_engine(url)
    METADATA.create_all(engine)
    ledger = SqlLedger(engine.dialect)
    bounds = bounds_of(limit(requests=10))
    with engine.connect() as conn:
        for id_ in "ab":  # the second batch finds the first one's row, which is not committed
            ledger.apply(conn, [hold(id_, bounds)], NOW)
        conn.rollback()
        ledger.apply(conn, [hold("c", bounds)], NOW)
        conn.commit()
        assert ledger.peek(conn, [bounds[0].key]) == {bounds[0].key: Counter(held=ASKED)}
        conn.rollback()
    engine.dispose()


def test_counters_deleted_from_outside_are_noticed(url: str) -> None:
    engine = ledger_engine(url)
    METADATA.create_all(engine)
    bounds = bounds_of(limit(requests=10))
    told: list[tuple[str, str]] = []
    lenient = SqlLedger(engine.dialect, on_drift=lambda key, id_: told.append((key, id_)))
    with engine.begin() as conn:
        lenient.apply(conn, [hold("a", bounds)], NOW)
    with engine.begin() as conn:
        conn.execute(delete(TABLES.counters))
    with pytest.raises(LedgerBroken, match="hold a"), engine.begin() as conn:
        SqlLedger(engine.dialect).apply(conn, [Settle("a", ONE)], NOW)
    with engine.begin() as conn:
        assert isinstance(lenient.apply(conn, [Settle("a", ONE)], NOW)[0], Settled)
        assert lenient.peek(conn, [bounds[0].key]) == {bounds[0].key: Counter(used=ONE)}
    engine.dispose()
    assert told == [(bounds[0].key, "a")]


def test_the_tables_carry_integers_and_an_index_on_leases(url: str) -> None:
    engine = create_engine(url)
    METADATA.create_all(engine)
    found = inspect(engine)
    types = {str(column["type"]) for column in found.get_columns("state_counters") if column["name"] != "key"}
    indexed = [index["column_names"] for index in found.get_indexes("state_holds")]
    engine.dispose()
    assert types == {"BIGINT"}
    assert indexed == [["lease_until_us"]]
