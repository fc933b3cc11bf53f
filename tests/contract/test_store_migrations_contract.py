"""The tables that migrations make, over a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import multiprocessing
import sqlite3
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, inspect, text

from budgets import METADATA as LEDGER
from llm_proxy.records import engine as engine_module
from llm_proxy.records import migrate
from llm_proxy.records.console_tables import METADATA
from llm_proxy.records.migrate import NewerStore, status, upgrade
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import store

pytest_plugins = ["tests.postgres"]


def _upgrade(url: str) -> str:
    with store(url) as engine:
        return upgrade(engine)


def test_migrations_can_run_again(url: str) -> None:
    assert _upgrade(url) == _upgrade(url)
    with store(url) as engine:
        current, newest = status(engine)
    assert current == newest


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_migrations_run_once_however_many_start_together(url: str, pool: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    executor = ThreadPoolExecutor(4) if pool == "threads" else ProcessPoolExecutor(4, mp_context=spawn)
    with executor:
        assert len(set(executor.map(_upgrade, [url] * 4))) == 1
    with store(url) as engine:
        assert {"records", "state_calls", "state_holds"} <= set(inspect(engine).get_table_names())


def test_a_migration_waits_longer_than_a_call_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "BUSY_MS", 100)
    file = tmp_path / "s.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other, ThreadPoolExecutor(1) as waiting:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("BEGIN IMMEDIATE")
        migrated = waiting.submit(_upgrade, f"sqlite:///{file}")
        with pytest.raises(TimeoutError):
            migrated.result(1.0)
        other.execute("COMMIT")
        assert migrated.result(30)


def test_a_store_that_is_up_to_date_is_waited_for_by_nobody(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever holds its locks: what follows tells that in its own time."""
    monkeypatch.setattr(migrate, "WAIT_MS", 0)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": migrate.LOCK})
        with ThreadPoolExecutor(1) as other:
            assert other.submit(upgrade, engine).result(30) == status(engine)[1]


def test_the_migrated_tables_are_those_of_the_code(engine: Engine) -> None:
    with engine.connect() as connection:
        # The search index is PostgreSQL's own: no table of the code, since SQLite has it in another file.
        context = MigrationContext.configure(
            connection,
            opts={"compare_type": True, "include_name": lambda name, *_: name != "state_texts"},
        )
        everything = MetaData()
        for table in (*METADATA.sorted_tables, *LEDGER.sorted_tables):
            table.to_metadata(everything)
        assert compare_metadata(context, everything) == []


def test_a_store_of_a_newer_version_is_left_alone(engine: Engine) -> None:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerStore, match="9999"):
        upgrade(engine)
