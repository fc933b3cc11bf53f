"""Content goes when its day is old enough, and all else stays; over a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from llm_proxy.errors import ProxyError
from llm_proxy.records.audit_tables import purged
from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.ids import uuid7
from llm_proxy.records.policy_tables import approvals
from llm_proxy.records.retention_bodies import read_deleted
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import records, runs
from llm_proxy.records.writer import Writer
from llm_proxy.retention import deleting
from llm_proxy.retention import keeper as keeper_module
from llm_proxy.retention.exporting import ExportFailed
from llm_proxy.retention.holding import place, release
from llm_proxy.retention.keeper import Rules
from tests.contract.aged import SECRET, TODAY, House, house, sound
from tests.contract.judged import pay
from tests.contract.stored import REPLY, count
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import Clock

pytest_plugins = ["tests.postgres"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "PAUSE_S", 0.0)


def recorded(engine: Engine, kind: RecordKind) -> list[bytes]:
    query = select(records.c.body).where(records.c.kind == kind.value).order_by(records.c.at_us)
    with engine.connect() as connection:
        return [bytes(body) for body in connection.execute(query).scalars()]


def stands(engine: Engine, said: str) -> list[str]:
    """Kinds of records in whose bodies it is read."""
    with engine.connect() as connection:
        rows = connection.execute(select(records.c.kind, records.c.body)).all()
    return [kind for kind, body in rows if said.encode() in bytes(body)]


async def hold(at: House, run: str, agent: str = "bot") -> None:
    job = place(RunKey(agent, run), at.clock(), reason="suit 7", by="dana", via="test")
    _, placed = await at.writer.submit(job)
    assert placed


async def test_content_goes_with_its_day_and_what_was_done_stays(engine: Engine) -> None:
    async with house(engine, 32) as old, house(engine, 30) as edge:
        call, kept = await old.call(), await edge.call(say="younger")
        whole = old.view(call.id)
    assert (whole.request, whole.emitted, whole.kept) == (call.body, REPLY, True)
    assert whole.decisions[0].arguments == '{"amount": 5}'
    assert stands(engine, SECRET) == []  # the chain holds nothing of what was said
    async with house(engine) as now:
        assert now.days().keys() == {32, 30}
        (done,) = await now.retention.turn()
        assert (done.epoch, done.gone.blobs, done.kept) == (TODAY - 32, 7, 0)
        assert now.days().keys() == {30}
        assert now.salted() >= {30, 0}
        assert 32 not in now.salted()
        view = now.view(call.id)
        assert (view.request, view.reply, view.kept) == (None, None, False)
        (decision,) = view.decisions
        assert (decision.tool, decision.decision, decision.kept, decision.arguments) == (
            *("look", "allow", False),
            "",
        )
        assert view.usage == whole.usage
        assert now.view(kept.id).kept
        assert await now.retention.turn() == []
    begun, ended = map(read_deleted, recorded(engine, RecordKind.CONTENT_DELETED))
    assert (begun.stage, ended.stage, ended.blobs, ended.by) == ("begun", "done", 7, "retention")
    report = sound(engine)
    assert report.deleted == 7


async def test_a_held_run_and_those_below_it_keep_their_content_until_it_is_released(engine: Engine) -> None:
    async with house(engine, 40) as old:
        held, below, other = [await old.call(run, say=run) for run in ("r-held", "r-below", "r-other")]
        shared = await old.call("r-other", say="r-held")
    with engine.begin() as connection:
        parent = {"parent_run_id": "r-held", "parent_agent_id": "bot"}
        connection.execute(update(runs).where(runs.c.run_id == "r-below").values(**parent))
    async with house(engine) as now:
        await hold(now, "r-held")
        (done,) = await now.retention.turn()
        assert done.held_runs == 2
        assert done.kept > 0
        for call in (held, below):
            assert now.view(call.id).kept
            assert now.view(call.id).request == call.body
        assert not now.view(other.id).kept
        assert now.view(shared.id).request == shared.body  # said in the held run as well
        assert await now.retention.turn() == []
        sound(engine)
        gone = release(RunKey("bot", "r-held"), now.clock(), reason="settled", by="dana", via="test")
        assert (await now.writer.submit(gone))[1]
        (again,) = await now.retention.turn()
        assert (again.kept, again.gone.blobs) == (0, done.gone.blobs + done.kept)
        assert not now.view(held.id).kept
    assert len(recorded(engine, RecordKind.LEGAL_HOLD_RELEASED)) == 1
    sound(engine)


async def test_a_hold_placed_in_the_middle_of_a_sweep_is_heeded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleting, "AT_A_TIME", 1)
    async with house(engine, 40) as old:
        await old.call("r-1", say="one")
        late = await old.call("r-2", say="two")
    async with house(engine) as now:
        day = await asyncio.to_thread(deleting.Day, engine, TODAY - 40)
        await asyncio.to_thread(day.step)
        await hold(now, "r-2")
        with pytest.raises(deleting.HoldsChanged):
            await asyncio.to_thread(day.step)
        before = now.days()[40]
        (done,) = await now.retention.turn()
        assert (done.kept, done.gone.blobs) == (now.days()[40], before - done.kept)
        assert now.view(late.id).decisions[0].kept


async def test_a_sweep_that_broke_off_is_gone_on_with(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleting, "AT_A_TIME", 2)
    async with house(engine, 40) as old:
        await old.call()
    rules = Rules(30, tmp_path / "copies")
    async with house(engine, 0, rules) as now:
        steps = 0

        async def breaks_off() -> None:
            nonlocal steps
            steps += 1
            if steps == 2:
                raise OSError("killed")

        monkeypatch.setattr(now.retention, "_lead", breaks_off)
        with pytest.raises(OSError, match="killed"):
            await now.retention.turn()
        assert 0 < now.days()[40] < 7
    with engine.connect() as connection:
        assert connection.execute(select(purged.c.ended_us)).scalar() is None
    sound(engine)
    async with house(engine, 0, rules) as now:
        (done,) = await now.retention.turn()
        assert done.file == ""  # the copy was whole before
        assert 40 not in now.days()
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["content-2026-12-06.jsonl.gz"]
    sound(engine)


async def test_a_copy_is_written_before_and_without_it_nothing_goes(engine: Engine, tmp_path: Path) -> None:
    blocked = tmp_path / "copies"
    async with house(engine, 40) as old:
        call = await old.call()
    blocked.write_text("no folder")
    async with house(engine, 0, Rules(30, blocked)) as now:
        with pytest.raises(ExportFailed, match="copies"):
            await now.retention.turn()
        assert "copies" in now.retention.problem
        assert now.view(call.id).kept
        assert recorded(engine, RecordKind.CONTENT_DELETED) == []
        blocked.unlink()
        (done,) = await now.retention.turn()
        assert now.retention.problem == ""
    first, line, last = map(json.loads, gzip.decompress(Path(done.file).read_bytes()).splitlines())  # noqa: ASYNC240
    assert first == {"format": "llm-proxy.content/1", "day": "2026-12-06", "version": first["version"]}
    assert last == {"calls": 1}
    assert (line["call"]["id"], line["request"], line["emitted"]) == (
        *(call.id, call.body.decode()),
        REPLY.decode(),
    )
    assert line["call"]["decisions"][0]["arguments"] == '{"amount": 5}'
    (body,) = map(json.loads, recorded(engine, RecordKind.RECORDS_EXPORTED))
    assert (body["calls"], body["file"], len(body["sha256"])) == (1, done.file, 64)


async def test_arguments_that_people_decided_on_go_too(engine: Engine) -> None:
    async with house(engine, 40) as old:
        exchange = await old.bench.open()
        await old.bench.judge_of(exchange)((pay(amount=4711),))
        (row,) = old.bench.rows()
        assert row.arguments == '{"amount": 4711}'
    assert stands(engine, "4711") == []
    async with house(engine) as now:
        await now.retention.turn()
    with engine.connect() as connection:
        assert connection.execute(select(approvals.c.arguments)).scalar() == ""


async def test_one_process_sweeps_and_a_process_that_rested_takes_the_new_day(engine: Engine) -> None:
    async with house(engine, 40) as old:
        await old.call()
        old.clock.now += 40 * DAY_US
        assert old.writer.addresser.epoch == TODAY - 40
        await old.retention._roll()  # pyright: ignore[reportPrivateUsage]
        assert old.writer.addresser.epoch == TODAY
        async with house(engine) as other:
            assert other.retention._lease.lead()  # pyright: ignore[reportPrivateUsage]
            with pytest.raises(keeper_module.Busy):
                await old.retention.turn()
            await other.retention.turn()
            assert 40 not in other.days()


async def test_without_content_only_sizes_and_hashes_are_kept(engine: Engine) -> None:
    clock = Clock()
    writer = Writer(engine, uuid7(clock()), clock, keeps_content=False)
    await writer.start()
    try:
        at = House(engine, writer, clock)
        exchange = await at.call()
        view = at.view(exchange.id)
    finally:
        await writer.stop()
    with engine.connect() as connection:
        assert count(connection, "blobs") == 0
    assert (view.kept, view.reply, view.decisions[0].kept) == (False, None, False)
    assert stands(engine, SECRET) == []
    sound(engine)


async def test_what_can_not_be_recorded_is_not_deleted(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(engine, 40) as old:
        call = await old.call()
    async with house(engine) as now:

        async def refuses(*_: object, **__: object) -> None:
            raise ProxyError.__new__(ProxyError)

        monkeypatch.setattr(now.retention, "_note", refuses)
        with pytest.raises(ProxyError):
            await now.retention.turn()
        assert now.view(call.id).kept
