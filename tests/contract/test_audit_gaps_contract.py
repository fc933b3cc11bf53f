"""Verifying finds what hides behind other things: odd types, nameless writers, holds, partial checks."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from llm_proxy.audit.findings import Wrong
from llm_proxy.audit.since import starts_at
from llm_proxy.records.blobs import DAY_US
from llm_proxy.retention import keeper as keeper_module
from tests.contract.aged import TODAY, house, sound
from tests.contract.audited import KEY, fill, verified
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.contract.test_audit_contract import WHERE, named, places, rows, tampered
from tests.contract.test_audit_heads_contract import STATE, without
from tests.contract.test_retention_contract import hold

pytest_plugins = ["tests.postgres"]


async def test_a_hash_that_became_a_text_or_a_number_is_named(engine: Engine) -> None:
    """SQLite takes a value of any type in any column."""
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL's columns take their own type alone")
    await fill(engine)
    with engine.connect() as connection:
        for writer, seq, _ in places(connection):
            for odd in ("'text'", "5", "9999999999999"):
                sql = f"UPDATE records SET hash = {odd} WHERE {WHERE}"
                found = tampered(connection, (sql, {"writer": writer, "seq": seq}))
                assert named(found, f"{writer}/{seq}") is Wrong.EDITED


async def test_a_record_of_a_writer_with_no_name_is_found(engine: Engine) -> None:
    await fill(engine)
    insert = "INSERT INTO records (writer, seq, kind, at_us, body, hash) VALUES ('', 1, 'x', 5, :b, :b)"
    with engine.connect() as connection:
        assert named(tampered(connection, (insert, {"b": b"{}"})), "/1") is Wrong.EDITED


async def test_a_writer_that_vanished_is_missed_by_a_check_of_what_came_later_too(engine: Engine) -> None:
    await fill(engine)
    with engine.connect() as connection:
        writer, seq = [(w, s) for w, s, kind in places(connection) if kind == "audit.checkpoint"][-1]
        starts = starts_at(connection, f"{writer}/{seq}", {KEY.id: KEY.public})
        assert verified(connection, starts=starts).intact
        first = min(writer for writer, _, _ in places(connection))
        connection.rollback()
        for table in ("records", *STATE):
            without(connection, f"DELETE FROM {table} WHERE writer = :writer", writer=first)
        named(list(verified(connection, starts=starts).findings), first, "state_writers")
        connection.rollback()


async def test_held_content_of_a_deleted_day_is_missed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a day was deleted excuses what is gone of it, but not what holds kept."""
    monkeypatch.setattr(keeper_module, "PAUSE_S", 0.0)
    async with house(engine, 40) as old:
        await old.call("r-held", say="held")
        await old.call("r-other", say="other")
    async with house(engine) as now:
        await hold(now, "r-held")
        (done,) = await now.retention.turn()
        assert done.kept > 1
        sound(engine)
        with engine.connect() as connection:
            kept = rows(connection, f"SELECT id FROM blobs WHERE epoch = {TODAY - 40}")
            connection.rollback()
            connection.execute(text("DELETE FROM blobs WHERE id = :id"), {"id": kept[0][0]})
            report = verified(connection)
            assert named(list(report.findings), f"day {TODAY - 40}", "blobs") is Wrong.DELETED
            assert f"{done.kept} rows" in report.findings[0].message
            connection.rollback()
        now.clock.now += DAY_US
        await now.retention.turn()
        sound(engine)
