"""The writer's thread: its queue's bounds, its end, and callers that leave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import Engine, event, select

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.records import writer as writer_module
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, RecordKind
from llm_proxy.records.tables import records, writers
from llm_proxy.records.writer import Writer
from tests.stores import NOW, OWN, Clock, faults_of_chain, store, writing


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with store(f"sqlite:///{tmp_path}/store.db") as opened:
        yield opened


def noting(number: int) -> Job:
    draft = Draft(RecordKind.STORE_BACK, NOW, None, None, None, b"%d" % number)
    return Job(lambda _: Wrote(number, Evidence(records=(draft,))))


def blocking(begun: Event, go: Event) -> Job:
    """Holds the writer's thread until `go`."""

    def then(_found: Found) -> Wrote:
        begun.set()
        assert go.wait(10)
        return Wrote("went")

    return Job(then)


def stored(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        assert faults_of_chain(connection) == []
        bodies = connection.execute(select(records.c.body).where(OWN)).scalars()
        return [int(bytes(body)) for body in bodies]


async def queue_up(writer: Writer, jobs: list[Job]) -> list[asyncio.Task[object]]:
    tasks = [asyncio.create_task(writer.submit(job)) for job in jobs]
    await asyncio.sleep(0)
    return tasks


async def test_past_its_bound_a_caller_waits_then_is_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_QUEUED", 3)
    monkeypatch.setattr(writer_module, "ROOM_S", 0.05)
    begun, go = Event(), Event()
    async with writing(engine) as writer:
        tasks = await queue_up(writer, [blocking(begun, go), noting(1), noting(2)])
        assert writer.queued == 3
        with pytest.raises(ProxyError) as refused:
            await writer.submit(noting(3))
        assert refused.value.kind is Kind.STORE_UNAVAILABLE
        assert refused.value.retry_after_s
        go.set()
        assert await asyncio.gather(*tasks) == ["went", 1, 2]
        assert writer.queued == 0
    assert stored(engine) == [1, 2]


async def test_everyone_who_waits_for_room_gets_it_in_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_QUEUED", 2)
    begun, go = Event(), Event()
    async with writing(engine) as writer:
        tasks = await queue_up(writer, [blocking(begun, go), *(noting(n) for n in range(20))])
        assert writer.queued == 2
        go.set()
        assert await asyncio.gather(*tasks) == ["went", *range(20)]
    assert sorted(stored(engine)) == list(range(20))


async def test_what_is_queued_together_is_one_transaction(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_BATCH", 10)
    commits: list[None] = []
    begun, go = Event(), Event()
    async with writing(engine) as writer:
        [first] = await queue_up(writer, [blocking(begun, go)])
        await asyncio.to_thread(begun.wait)
        tasks = await queue_up(writer, [noting(n) for n in range(25)])
        event.listen(engine, "commit", lambda _: commits.append(None))
        go.set()
        await asyncio.gather(first, *tasks)
    assert len(commits) == 1 + 3


async def test_what_was_queued_is_written_before_the_end(engine: Engine) -> None:
    begun, go = Event(), Event()
    async with writing(engine) as writer:
        tasks = await queue_up(writer, [blocking(begun, go), *(noting(n) for n in range(5))])
        go.set()
    assert await asyncio.gather(*tasks) == ["went", *range(5)]
    assert stored(engine) == list(range(5))


async def test_after_the_end_jobs_are_refused_and_none_waits_for_ever(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_QUEUED", 1)
    begun, go = Event(), Event()
    async with writing(engine) as writer:
        first, waits = await queue_up(writer, [blocking(begun, go), noting(1)])
        stopping = asyncio.create_task(writer.stop())
        await asyncio.sleep(0)
        go.set()
        await stopping
        assert await first == "went"
        with pytest.raises(ProxyError, match="store"):
            await waits
        with pytest.raises(ProxyError, match="store"):
            await writer.submit(noting(2))
    assert stored(engine) == []


async def test_a_job_whose_caller_left_is_written_all_the_same(engine: Engine) -> None:
    begun, go = Event(), Event()
    async with writing(engine) as writer:
        first, left = await queue_up(writer, [blocking(begun, go), noting(1)])
        left.cancel()
        go.set()
        await first
        with pytest.raises(asyncio.CancelledError):
            await left
        assert await writer.submit(noting(2)) == 2
        assert writer.queued == 0
    assert stored(engine) == [1, 2]


def test_a_closed_event_loop_stops_no_write(engine: Engine) -> None:
    begun, go = Event(), Event()
    writer = Writer(engine, "w", Clock())

    async def abandon() -> None:
        await writer.start()
        await queue_up(writer, [blocking(begun, go), noting(1)])

    asyncio.run(abandon())
    go.set()
    asyncio.run(writer.stop())
    assert stored(engine) == [1]


async def test_a_writer_is_registered_before_it_writes(engine: Engine) -> None:
    async with writing(engine) as writer:
        with engine.connect() as connection:
            row = connection.execute(select(writers)).one()
            first = connection.execute(select(records)).one()
        assert (first.kind, first.call_id) == ("writer.started", None)
        assert (row.writer, row.head_seq, bytes(row.head_hash)) == (writer.id, 1, bytes(first.hash))
