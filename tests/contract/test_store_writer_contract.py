"""What a writer commits, and what it does when that fails, over a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import Barrier, BrokenBarrierError, Event

import pytest
from sqlalchemy import Connection, Engine, event, func, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from structlog.testing import capture_logs

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import BlobDraft, CallOpen, Evidence, Refusal, RunOpen, RunUpdate
from llm_proxy.records.tables import records, refusals
from tests.contract.stored import count, noting, raises, record
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, OWN, faults_of_chain, outage, writing

pytest_plugins = ["tests.postgres"]


async def test_what_is_queued_together_is_committed_and_chained(engine: Engine) -> None:
    async with writing(engine) as writer:
        values = await asyncio.gather(*(writer.submit(noting(record(n), value=n)) for n in range(300)))
        assert writer.queued == 0
    with engine.connect() as connection:
        assert faults_of_chain(connection) == []
        assert values == list(range(300))
        assert connection.execute(select(func.max(records.c.seq))).scalar_one() == 1 + 300


async def test_every_writer_has_a_chain_of_its_own(engine: Engine) -> None:
    async with writing(engine) as one, writing(engine) as two:
        await asyncio.gather(*(w.submit(noting(record(n))) for n in range(40) for w in (one, two)))
    with engine.connect() as connection:
        assert faults_of_chain(connection) == []
        of_each = select(func.max(records.c.seq)).group_by(records.c.writer)
        assert connection.execute(of_each).scalars().all() == [41, 41]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "call.opened"},
        {"at_us": 5},
        {"call_id": "other"},
        {"run_id": None},
        {"agent_id": ""},
        {"body": b"{}"},
        {"seq": 99},
        {"hash": b"\1" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_no_column_of_the_evidence_can_change_unseen(engine: Engine, change: dict[str, object]) -> None:
    async with writing(engine) as writer:
        for n in range(3):
            await writer.submit(noting(record(n, f"call-{n}")))
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(update(records).where(records.c.seq == 2).values(change))
    with engine.connect() as connection:
        assert faults_of_chain(connection) != []


def _twice_the_same_call() -> Job:
    row = CallOpen("same", "r", "bot", "", "", "k", "openai_chat", False, "m", "open", NOW)
    return Job(lambda _: Wrote(None, Evidence(records=(record(0),), opens=(row, row))))


@pytest.mark.parametrize(
    ("poison", "answer"),
    [
        (raises(ValueError("poison")), ValueError),
        (raises(StopIteration()), RuntimeError),
        (_twice_the_same_call(), IntegrityError),
    ],
    ids=["raises", "stop-iteration", "constraint"],
)
async def test_one_bad_job_fails_alone(engine: Engine, poison: Job, answer: type[Exception]) -> None:
    async with writing(engine) as writer:
        good = [writer.submit(noting(record(n), value=n)) for n in range(10)]
        jobs = [*good[:5], writer.submit(poison), *good[5:]]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert isinstance(results.pop(5), answer)
        assert results == list(range(10))
        assert writer.healthy
        assert await writer.submit(noting(record(11), value="next")) == "next"
    with engine.connect() as connection:
        assert faults_of_chain(connection) == []
        assert (count(connection, "records"), count(connection, "state_calls")) == (11, 0)


async def test_what_no_column_can_hold_fails_alone(engine: Engine) -> None:
    async with writing(engine) as writer:
        huge = RunUpdate(2**70, 0, False, "[]", 0, 0, "bot", "run-1")
        bad = Job(lambda _: Wrote(None, Evidence(records=(record(0),), run_updates=(huge,))))
        outcome = await asyncio.gather(
            writer.submit(bad), writer.submit(noting(record(1))), return_exceptions=True
        )
        assert isinstance(outcome[0], Exception)
        assert outcome[1] is None
    with engine.connect() as connection:
        assert count(connection, "records") == 1


async def test_a_store_that_is_gone_refuses_and_comes_back(engine: Engine, url: str) -> None:
    async with writing(engine) as writer:
        await writer.submit(noting(record(1)))
        with outage(url, engine):
            tries = (writer.submit(noting(record(n))) for n in range(3))
            outcome = await asyncio.gather(*tries, return_exceptions=True)
            assert [isinstance(o, ProxyError) and o.kind for o in outcome] == [Kind.STORE_UNAVAILABLE] * 3
            assert len({id(o) for o in outcome}) == 3, "every caller raises an error of its own"
            assert not writer.healthy
        await writer.submit(noting(record(2)))
        assert writer.healthy
    with engine.connect() as connection:
        assert faults_of_chain(connection) == []
        assert count(connection, "records") == 2


async def test_a_commit_whose_answer_was_lost_leaves_the_chain_whole(engine: Engine) -> None:
    lose = Event()

    def committed(connection: Connection) -> None:
        if lose.is_set() and connection.get_execution_options().get("writes"):
            lose.clear()
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.commit()
            raise OperationalError("COMMIT", None, Exception("the connection was lost"))

    event.listen(engine, "commit", committed)
    async with writing(engine) as writer:
        await writer.submit(noting(record(1)))
        lose.set()
        with pytest.raises(ProxyError, match="store can't be written"):
            await writer.submit(noting(record(2)))
        await writer.submit(noting(record(3)))
    with engine.connect() as connection:
        assert faults_of_chain(connection) == []
        bodies = connection.execute(select(records.c.body).where(OWN).order_by(records.c.seq)).scalars()
        assert [bytes(body) for body in bodies] == [b'{"n":1}', b'{"n":2}', b'{"n":3}']


async def test_writers_that_store_the_same_content_crosswise_do_not_stop_each_other(engine: Engine) -> None:
    drafts = tuple(BlobDraft(bytes([n]) * 32, 1, b"x" * 3000) for n in range(250))
    begun = tuple(RunOpen("bot", f"r{n}", "", "", "", "", False, NOW) for n in range(250))
    forth = Evidence(blobs=drafts, runs=begun, refusals=(Refusal(1, "a"), Refusal(1, "b")))
    back = Evidence(blobs=drafts[::-1], runs=begun[::-1], refusals=(Refusal(1, "b"), Refusal(1, "a")))
    both = Barrier(2)

    def storing(evidence: Evidence) -> Job:
        def then(_found: Found) -> Wrote:
            with suppress(BrokenBarrierError):  # on SQLite, where one transaction waits for the other
                both.wait(0.1)
            return Wrote(None, evidence)

        return Job(then)

    with capture_logs() as logs:
        async with writing(engine) as one, writing(engine) as two:
            await asyncio.gather(one.submit(storing(forth)), two.submit(storing(back)))
    assert logs == []
    with engine.connect() as connection:
        assert (count(connection, "blobs"), count(connection, "state_runs")) == (250, 250)
        assert set(connection.execute(select(refusals.c["count"])).scalars()) == {2}
