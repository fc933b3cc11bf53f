"""Content that somebody damaged: nothing goes for which there is no copy, and no process ends for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from llm_proxy.records.audit_tables import legal_holds
from llm_proxy.retention import keeper as keeper_module
from llm_proxy.retention.deleting import Day, HoldsChanged
from llm_proxy.retention.exporting import ExportFailed
from llm_proxy.retention.keeper import Rules
from tests.contract.aged import TODAY, House, house
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.contract.test_retention_contract import hold
from tests.contract.test_retention_deliveries_contract import ASKED, left, sent
from tests.proxy import until

pytest_plugins = ["tests.postgres"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "PAUSE_S", 0.0)
    monkeypatch.setattr(keeper_module, "LOOK_S", 0.01)


async def lives(now: House) -> None:
    """The task goes on, and says what is wrong."""
    task = asyncio.create_task(now.retention.run())
    await until(lambda: bool(now.retention.problem) or task.done(), "it says what is wrong")
    assert not task.done(), task.exception()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_content_that_can_not_be_read_is_not_deleted_uncopied(engine: Engine, tmp_path: Path) -> None:
    async with house(engine, 40) as old:
        await old.call()
    with engine.begin() as connection:
        damage = "UPDATE blobs SET data = :junk WHERE codec <> 'raw'"
        assert connection.execute(text(damage), {"junk": b"\0junk"}).rowcount
    async with house(engine, rules=Rules(days=30, export=tmp_path / "kept")) as now:
        before = now.days()
        with pytest.raises(ExportFailed, match="can't be read"):
            await now.retention.turn()
        await lives(now)
        assert now.days() == before
        assert list((tmp_path / "kept").iterdir()) == []


async def test_a_hold_that_is_being_placed_is_waited_for(engine: Engine) -> None:
    """SQLite has one writer at a time as it is."""
    if engine.dialect.name == "sqlite":
        pytest.skip("one transaction writes at a time")
    async with house(engine, 40) as old:
        call = await old.call()
    day = await asyncio.to_thread(Day, engine, TODAY - 40)
    with engine.connect() as connection:
        hold = {"agent_id": "bot", "run_id": "run-1", "by": "dana", "reason": "suit 7"}
        connection.execute(legal_holds.insert().values(**hold, placed_us=old.clock()))
        step = asyncio.create_task(asyncio.to_thread(day.step))
        await asyncio.wait({step}, timeout=0.1)
        connection.commit()
    with pytest.raises(HoldsChanged):
        await step
    assert old.view(call.id).kept


async def test_a_held_run_whose_records_can_not_be_read_keeps_everything(engine: Engine) -> None:
    async with house(engine, 40) as old:
        call = await old.call()
    async with house(engine) as now:
        await hold(now, "run-1")
        before = now.days()[40]
        with engine.begin() as connection:
            damage = "UPDATE records SET body = :junk WHERE call_id = :call AND kind = 'call.opened'"
            assert connection.execute(text(damage), {"junk": b"{", "call": call.id}).rowcount
        await lives(now)
        assert now.days()[40] == before


async def test_what_a_process_that_died_left_beside_goes_in_the_next_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The day is done, and no other comes after it."""
    async with house(engine, 40) as old:
        await old.call()
    async with house(engine) as now:

        async def died(_: int) -> None:
            raise OSError

        monkeypatch.setattr(now.retention, "_beside", died)
        with pytest.raises(OSError):
            await now.retention.turn()
    sent(engine, 40, "asked", ASKED)
    async with house(engine) as later:
        assert await later.retention.turn() == []
    assert left(engine) == set()
