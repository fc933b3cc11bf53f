"""What the store keeps, and in which order, over a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Event

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, event, func, inspect, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError
from structlog.testing import capture_logs

from budgets import METADATA as LEDGER
from budgets import Amount, Expire, Settle, SqlLedger, Take, Taken
from llm_proxy import journal
from llm_proxy.admission import LEASE_US
from llm_proxy.archive.calls import call_view, call_views
from llm_proxy.archive.outbox import StoreOutbox
from llm_proxy.chat.events import Usage
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Spent
from llm_proxy.judge import Judge
from llm_proxy.records import engine as engine_module
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.blobs import DAY_US, epoch_of
from llm_proxy.records.evidence import (
    BlobDraft,
    CallOpen,
    Draft,
    Evidence,
    RecordKind,
    Refusal,
    RunOpen,
    RunUpdate,
    ToolCallRow,
)
from llm_proxy.records.large import LARGE
from llm_proxy.records.leases import LEASE_US as LEADER_US
from llm_proxy.records.leases import Lease
from llm_proxy.records.migrate import NewerStore, status, upgrade
from llm_proxy.records.runstate import RunKey, RunState
from llm_proxy.records.tables import METADATA, blobs, calls, records, refusals, runs, salts
from llm_proxy.records.view import CallView, CostLabel, Problem, Status
from llm_proxy.recovery import Recovery, _closing
from tests.stores import NOW, Clock, Desk, body_of, faults_of_chain, outage, store, writing

pytest_plugins = ["tests.postgres"]

RUN = RunKey("bot", "run-1")
REPLY = (
    b'{"id":"c","model":"m-2","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2}}'
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def engine(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(engine_module, "BUSY_MS", 200)
    with store(url) as opened:
        yield opened


def record(number: int, call_id: str | None = None, kind: RecordKind = RecordKind.CALL_CLOSED) -> Draft:
    return Draft(kind, NOW + number, call_id, "run-1", "bot", b'{"n":%d}' % number)


def noting(*drafts: Draft, value: object = None) -> Job:
    return Job(lambda _: Wrote(value, Evidence(records=drafts)))


def count(connection: Connection, table: str) -> int:
    return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


def view(engine: Engine, id_: str) -> CallView:
    with engine.connect() as connection:
        found = call_view(connection, id_)
    assert found is not None
    return found


# Migrations


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


def test_the_migrated_tables_are_those_of_the_code(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        everything = MetaData()
        for table in (*METADATA.sorted_tables, *LEDGER.sorted_tables):
            table.to_metadata(everything)
        assert compare_metadata(context, everything) == []


def test_a_store_of_a_newer_version_is_left_alone(engine: Engine) -> None:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerStore, match="9999"):
        upgrade(engine)


# The writer


async def test_what_is_queued_together_is_committed_and_chained(engine: Engine) -> None:
    async with writing(engine) as writer:
        values = await asyncio.gather(*(writer.submit(noting(record(n), value=n)) for n in range(300)))
        assert writer.queued == 0
    with engine.connect() as connection:
        assert faults_of_chain(connection) == []
        assert values == list(range(300))
        assert connection.execute(select(func.max(records.c.seq))).scalar_one() == 300


async def test_every_writer_has_a_chain_of_its_own(engine: Engine) -> None:
    async with writing(engine) as one, writing(engine) as two:
        await asyncio.gather(*(w.submit(noting(record(n))) for n in range(40) for w in (one, two)))
    with engine.connect() as connection:
        assert faults_of_chain(connection) == []
        of_each = select(func.max(records.c.seq)).group_by(records.c.writer)
        assert connection.execute(of_each).scalars().all() == [40, 40]


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


def _raises(error: Exception) -> Job:
    def then(_found: Found) -> Wrote:
        raise error

    return Job(then)


def _twice_the_same_call() -> Job:
    row = CallOpen("same", "r", "bot", "", "", "k", "openai_chat", False, "m", "open", NOW)
    return Job(lambda _: Wrote(None, Evidence(records=(record(0),), opens=(row, row))))


@pytest.mark.parametrize(
    ("poison", "answer"),
    [
        (_raises(ValueError("poison")), ValueError),
        (_raises(StopIteration()), RuntimeError),
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
        huge = RunUpdate(2**70, 0, False, "[]", 0, "bot", "run-1")
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
        bodies = connection.execute(select(records.c.body).order_by(records.c.seq)).scalars()
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


# Content


async def test_content_is_stored_once_a_day(engine: Engine) -> None:
    clock = Clock()
    history = [{"role": "user", "content": f"{n} " + "long " * 200} for n in range(20)]
    async with writing(engine, clock) as writer, writing(engine, clock) as other:
        desk, beside = Desk(writer, clock), Desk(other, clock)
        today = [await desk.open(body_of(*history[:n])) for n in range(1, 21)]
        assert len(today[-1].intake.new if today[-1].intake else ()) == 1
        await beside.open(body_of(*history))
        with engine.connect() as connection:
            assert count(connection, "blobs") == 20
            sizes = connection.execute(
                select(func.sum(blobs.c.size), func.sum(func.length(blobs.c.data)))
            ).one()
            assert sizes[1] < sizes[0] / 5
        clock.now += DAY_US
        await desk.close(today[-1])  # the first commit after midnight brings the new salt
        tomorrow = await desk.open(body_of(*history))
        with engine.connect() as connection:
            assert count(connection, "blobs") == 40
            assert len(set(connection.execute(select(salts.c.salt)).scalars())) == 2
            epochs = connection.execute(select(blobs.c.epoch).distinct()).scalars()
            assert set(epochs) == {epoch_of(NOW), epoch_of(NOW) + 1}
    for exchange in (today[0], today[-1], tomorrow):
        assert view(engine, exchange.id).request == exchange.body


async def test_requests_under_way_at_midnight_keep_their_content(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        read, opened = await desk.read(body_of(user="late")), await desk.open(body_of(user="later"))
        clock.now += DAY_US
        await desk.admit(read)
        for exchange in (read, opened):
            exchange.emitted, exchange.status = io.BytesIO(REPLY), Status.OK
            await desk.close(exchange)
        assert writer.addresser.epoch == epoch_of(clock.now)
    for exchange in (read, opened):
        found = view(engine, exchange.id)
        assert (found.request, found.emitted) == (exchange.body, REPLY)


async def test_the_salt_of_a_new_day_outlives_a_batch_that_failed(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        clock.now += DAY_US
        with pytest.raises(ValueError, match="poison"):
            await writer.submit(_raises(ValueError("poison")))
        await writer.submit(noting(record(1)))
        known = writer.addresser.address(b"x")
    async with writing(engine, clock) as after:
        assert (after.addresser.epoch, after.addresser.address(b"x")) == (epoch_of(clock.now), known)


# Calls, read back


async def test_a_call_reads_back_as_it_was(engine: Engine) -> None:
    clock = Clock()
    odd = (
        b' {"m\\u006fdel" : "m",\n"messages":[ {"role":"user","content":"\xf0\x9f\x8c\x8d \\ud83c\\udf0d"} ,'
        b'{"content":"a\\u0000b","role":"user"},{"content":"a\\u0000b","role":"user"}],'
        b'"x":1e-400,"tools":[]} \r\n'
    )
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        exchange = await desk.open(odd)
        assert view(engine, exchange.id).status is Status.OPEN
        assert view(engine, exchange.id).request == odd
        exchange.emitted = io.BytesIO(REPLY)
        exchange.released = [REPLY.replace(b"Hello", b"Hi")]
        exchange.status, exchange.target, exchange.served_model = Status.OK, "t", "m"
        exchange.edits = ((19, 22, b'"big"'),)
        exchange.assembly.usage = Usage(input=9, output=2)
        exchange.spent = Spent(Usage(input=9, output=2), 13, CostLabel.REPORTED)
        await desk.close(exchange)
    found = view(engine, exchange.id)
    assert (found.run_id, found.agent_id, found.user_id, found.team) == (
        "run-1",
        "bot",
        "ada@example.com",
        "support",
    )
    assert (found.request, found.emitted) == (odd, REPLY)
    assert found.sent == odd[:19] + b'"big"' + odd[22:]
    assert found.released == REPLY.replace(b"Hello", b"Hi")
    assert found.reply is not None
    assert found.reply.choices[0].text == "Hello"
    assert (found.status, found.usage, found.cost_micro_usd) == (Status.OK, Usage(input=9, output=2), 13)
    assert found.held["requests"] == 1
    with engine.connect() as connection:
        row = connection.execute(select(calls)).one()
        assert (row.status, row.input_tokens, row.micro_usd, row.run_id) == ("ok", 9, 13, "run-1")
        [bare] = call_views(connection, [exchange.id], content=False)
    assert (bare.request, bare.sent, bare.emitted, bare.released, bare.reply) == (None,) * 5


async def test_a_reply_of_which_nothing_was_released_says_so(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        exchange = await desk.open(body_of())
        exchange.emitted, exchange.released = io.BytesIO(b'{"id":"cut'), []
        exchange.status = Status.FAILED
        await desk.close(exchange)
    found = view(engine, exchange.id)
    assert (found.emitted, found.released) == (b'{"id":"cut', b"")
    assert found.reply is not None
    assert not found.reply.complete


async def test_a_reply_is_kept_once_where_the_caller_got_all_but_some_of_it(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        exchange = await desk.open(body_of())
        exchange.emitted = io.BytesIO(b"data: 1\n\ndata: usage\n\ndata: [DONE]\n\n")
        exchange.left_out, exchange.status = ((9, 22),), Status.OK
        await desk.close(exchange)
        nothing = await desk.open(body_of())
        nothing.emitted, nothing.released = io.BytesIO(b"data: 1\n\ndata: 2\n\n"), []
        nothing.left_out, nothing.status = ((9, 18),), Status.FAILED
        await desk.close(nothing)
    found = view(engine, exchange.id)
    assert found.emitted == b"data: 1\n\ndata: usage\n\ndata: [DONE]\n\n"
    assert found.released == b"data: 1\n\ndata: [DONE]\n\n"
    assert view(engine, nothing.id).released == b"", "that nothing was released goes first"


async def test_large_content_reads_back_as_it_was(engine: Engine) -> None:
    """SQLite gets it piece by piece, in the same transaction as the rest of the batch."""
    clock = Clock()
    large = random.Random(3).randbytes(3 * LARGE + 17)
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        exchange = await desk.open(body_of())
        exchange.emitted, exchange.released = io.BytesIO(large), [large[1:], b"!"]
        exchange.status = Status.OK
        await desk.close(exchange)
    found = view(engine, exchange.id)
    assert (found.emitted, found.released) == (large, large[1:] + b"!")


@pytest.mark.parametrize("understood", [True, False])
async def test_a_refused_call_is_recorded_with_what_was_asked(engine: Engine, *, understood: bool) -> None:
    clock = Clock()
    body = body_of(model="\0secret\0model") if understood else b"{not json \xff"
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        exchange = await desk.read(body if understood else body_of())
        if not understood:
            exchange.body, exchange.request, exchange.intake = body, None, None
        exchange.status = Status.REFUSED
        exchange.problem = Problem(kind="model_not_found", message="no such model", status=404)
        evidence = journal.refused(exchange, writer.addresser, clock())
        await writer.submit(Job(lambda _: Wrote(None, evidence)))
    found = view(engine, exchange.id)
    assert (found.status, found.request, found.problem) == (Status.REFUSED, body, exchange.problem)
    with engine.connect() as connection:
        assert connection.execute(select(calls.c.status, calls.c.error)).all() == [
            ("refused", "model_not_found")
        ]
        assert faults_of_chain(connection) == []


async def test_a_refused_hold_leaves_nothing(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        exchange = await desk.read(body_of(max_completion_tokens=200_000))
        with pytest.raises(ProxyError, match="'day' allows 100,000 tokens"):
            await desk.admit(exchange)
        assert not exchange.opened
    with engine.connect() as connection:
        assert [count(connection, t) for t in ("records", "blobs", "state_calls", "state_holds")] == [0] * 4


# Runs


def _tool_call(call: str, tool: str) -> ToolCallRow:
    return ToolCallRow("bot", "run-1", call, 0, 0, f"id-{tool}", tool, "allow", "write", "", NOW)


def _verdict(tool: str, expect: int, seen: list[RunState]) -> Job:
    def then(found: Found) -> Wrote:
        seen.append(found.run)
        if found.run.revision != expect:
            assert found.results == ()
            return Wrote("stale")
        assert [type(result) for result in found.results] == [Taken]
        advanced = RunUpdate(expect + 1, 0, False, "[]", found.run.denials, "bot", "run-1")
        return Wrote("judged", Evidence(tool_calls=(_tool_call(tool, tool),), run_updates=(advanced,)))

    return Job(then, ops=(Take(tool, (), Amount(tool_calls=1)),), run=RUN, expect=expect)


BEGUN = Evidence(runs=(RunOpen("bot", "run-1", "", "", "", "triage", False, NOW),))


@pytest.mark.parametrize("together", [True, False], ids=["one-writer", "two-writers"])
async def test_of_two_verdicts_on_one_run_the_second_sees_the_first(
    engine: Engine, *, together: bool
) -> None:
    async with writing(engine) as one, writing(engine) as two:
        await one.submit(Job(lambda _: Wrote(None, BEGUN)))
        seen: list[RunState] = []
        other = one if together else two
        outcome = await asyncio.gather(
            one.submit(_verdict("a", 0, seen)), other.submit(_verdict("b", 0, seen))
        )
        assert sorted(outcome) == ["judged", "stale"]
        late = max(seen, key=lambda state: state.revision)
        assert late.revision == 1
        assert [call.tool for call in late.history] == ["ab"[outcome.index("judged")]]
        assert await other.submit(_verdict("c", 1, seen)) == "judged"
    with engine.connect() as connection:
        assert count(connection, "state_tool_calls") == 2


async def test_runs_of_one_id_belong_to_their_agents(engine: Engine) -> None:
    async with writing(engine) as writer:
        await writer.submit(Job(lambda _: Wrote(None, BEGUN)))
        seen: list[RunState] = []
        await writer.submit(_verdict("a", 0, seen))

        def then(found: Found) -> Wrote:
            return Wrote(found.run)

        assert await writer.submit(Job(then, run=RunKey("other", "run-1"))) == RunState()


async def test_two_writers_that_begin_one_run_lose_no_label(engine: Engine) -> None:
    """Neither can lock the run, which isn't there yet: the later one is run again on what the first wrote."""
    both = Barrier(2)

    def begin(sensitivity: int, *, untrusted: bool) -> Job:
        def then(found: Found) -> Wrote:
            with suppress(BrokenBarrierError):  # where the other waits for this one's commit, as on SQLite
                both.wait(0.15)
            run = found.run
            advanced = RunUpdate(
                run.revision + 1,
                max(run.sensitivity, sensitivity),
                run.untrusted or untrusted,
                "[]",
                0,
                "bot",
                "run-1",
            )
            return Wrote(None, Evidence(runs=BEGUN.runs, run_updates=(advanced,)))

        return Job(then, run=RUN)

    async with writing(engine) as one, writing(engine) as two:
        await asyncio.gather(one.submit(begin(3, untrusted=False)), two.submit(begin(1, untrusted=True)))
    with engine.connect() as connection:
        row = connection.execute(select(runs.c.revision, runs.c.sensitivity, runs.c.untrusted)).one()
    assert tuple(row) == (2, 3, True)


async def test_verdicts_are_recorded_before_they_are_answered(engine: Engine) -> None:
    clock = Clock()
    long_id, wide = "call__thought__" + "x" * 4000, 1 << 33
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        exchange = await desk.open(body_of())
        judge = Judge(exchange, None, None, writer, clock, "test")
        body = REPLY.replace(
            b'"content":"Hello"',
            b'"tool_calls":[{"id":"ID","function":{"name":"f\\u0000","arguments":"{}"}}]',
        )
        for item in exchange.dialect.read_body(body.replace(b"ID", long_id.encode())).events:
            exchange.assembly.add(item)
        [call] = exchange.assembly.calls()
        assert (
            await judge((type(call)(choice=0, index=wide, id=call.id, name=call.name, arguments="{}"),)) == {}
        )
        found = view(engine, exchange.id)
        assert [(d.tool, d.tool_call_id, d.decision) for d in found.decisions] == [("f\0", long_id, "allow")]
        state = await writer.submit(Job(lambda found: Wrote(found.run), run=RUN))
    assert state.revision == 1
    assert [(c.tool, len(c.tool_call_id)) for c in state.history] == [("f\ufffd", 71)]


# The outbox


async def test_the_outbox_passes_over_no_call_of_either_writer(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as one, writing(engine, clock) as two:
        desks = [Desk(one, clock), Desk(two, clock)]
        outbox = StoreOutbox(engine, one.id, clock)
        sent: list[str] = []

        def drain(most: int) -> None:
            while (batch := outbox.next(most)) is not None:
                assert len(batch.calls) <= most
                sent.extend(call.id for call in batch.calls)
                outbox.advance(batch.cursor)

        closed: list[str] = []
        for turn in range(12):
            opened = [await desk.open(body_of(user=f"u{turn}")) for desk in desks]
            for desk, exchange in list(zip(desks, opened, strict=True))[:: 1 if turn % 2 else -1]:
                await desk.close(exchange)
                closed.append(exchange.id)
            if turn % 3 == 0:
                await asyncio.to_thread(drain, 2)
        waiting = outbox.backlog()
        assert waiting.count == 2 * (len(closed) - len(sent))  # records: one opens a call, one closes it
        assert waiting.oldest_us is not None
        await asyncio.to_thread(drain, 5)
        assert sorted(sent) == sorted(closed)
        assert outbox.backlog().count == 0
        assert outbox.next(5) is None


async def test_a_busy_writer_does_not_keep_anothers_calls_back(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as busy, writing(engine, clock) as quiet:
        outbox = StoreOutbox(engine, busy.id, clock)
        loud, rare = Desk(busy, clock), Desk(quiet, clock)
        lone = await rare.open(body_of())
        await rare.close(lone)
        sent: list[str] = []
        for _ in range(3):
            for _ in range(2):
                await loud.close(await loud.open(body_of()))
            batch = await asyncio.to_thread(outbox.next, 1)
            assert batch is not None
            sent += [call.id for call in batch.calls]
            outbox.advance(batch.cursor)
        assert lone.id in sent


async def test_a_cursor_never_moves_back_and_dead_letters_are_noted_once(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk, outbox = Desk(writer, clock), StoreOutbox(engine, writer.id, clock)
        for _ in range(2):
            await desk.close(await desk.open(body_of()))
        first = outbox.next(1)
        assert first is not None
        outbox.advance(first.cursor)
        second = outbox.next(1)
        assert second is not None
        outbox.advance(second.cursor)
        outbox.advance(first.cursor)
        assert outbox.next(1) is None
        outbox.dead_letter(first.calls[0].id, "x" * 5000)
        outbox.dead_letter(first.calls[0].id, "again")
    with engine.connect() as connection:
        assert count(connection, "state_dead_letters") == 1


# Leases and recovery


def test_one_leads_until_its_lease_ends(engine: Engine) -> None:
    clock = Clock()
    one, two = (Lease(engine, "job", name, clock) for name in ("one", "two"))
    assert [one.lead(), two.lead(), one.lead()] == [True, False, True]
    clock.now += LEADER_US
    assert [two.lead(), one.lead(), two.lead()] == [True, False, True]
    two.release()
    assert [one.lead(), two.lead()] == [True, False]
    two.release()
    assert one.lead()


def test_a_leader_whose_clock_was_set_back_asks_again(engine: Engine) -> None:
    ahead, behind = Clock(NOW + 3600_000_000), Clock()
    one, two = Lease(engine, "job", "one", ahead), Lease(engine, "job", "two", behind)
    assert one.lead()
    ahead.now = NOW
    assert one.lead()
    assert not two.lead()
    behind.now += LEADER_US
    assert two.lead(), "the lease ends by the clock as it now is"


def test_of_many_that_ask_at_once_one_leads(engine: Engine) -> None:
    leaders = [Lease(engine, "job", f"holder-{n}", Clock()) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(Lease.lead, leaders)) == 1


def _ended(connection: Connection) -> list[str]:
    kinds = select(records.c.call_id).where(records.c.kind == RecordKind.CALL_CLOSED.value)
    return [str(id_) for id_ in connection.execute(kinds.order_by(records.c.call_id)).scalars()]


async def test_calls_of_a_dead_proxy_are_closed_once_with_their_prompt_and_floor(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as died:
        dead = [await Desk(died, clock).open(body_of(user=f"u{n}")) for n in range(5)]
    async with writing(engine, clock) as one, writing(engine, clock) as two:
        clock.now += LEASE_US - 1_000_000
        live = await Desk(one, clock).open(body_of(user="alive"))
        workers = [Recovery(engine, one, {live.id: live.started_us}, clock), Recovery(engine, two, {}, clock)]
        assert await asyncio.gather(*(worker.step() for worker in workers)) == [0, 0]
        clock.now += 2_000_000
        assert sum(await asyncio.gather(*(worker.step() for worker in workers))) == 5
        clock.now += LEADER_US
        assert await asyncio.gather(*(worker.step() for worker in workers)) == [0, 0]
        ledger = SqlLedger(engine.dialect)
        with engine.connect() as connection:
            assert _ended(connection) == sorted(exchange.id for exchange in dead)
            assert faults_of_chain(connection) == []
            counter = ledger.peek(connection, [live.bounds[0].key])[live.bounds[0].key]
        floor = sum((exchange.floor for exchange in dead), Amount())
        assert (counter.used, counter.held) == (floor, live.held)
    for exchange in dead:
        found = view(engine, exchange.id)
        assert (found.status, found.request) == (Status.INTERRUPTED, exchange.body)
        assert (found.cost_micro_usd, found.cost_label) == (exchange.floor.micro_usd, CostLabel.PARTIAL)
        assert found.cost_micro_usd > 0
    assert view(engine, live.id).status is Status.OPEN


async def test_a_call_is_closed_once_even_where_two_workers_found_it_dead(engine: Engine) -> None:
    """As when the lease passes on between finding and closing."""
    clock = Clock()
    async with writing(engine, clock) as one, writing(engine, clock) as two:
        desk = Desk(one, clock)
        opened = [await desk.open(body_of()) for _ in range(4)]
        clock.now += LEASE_US * 2
        await one.submit(Job(lambda _: Wrote(None), ops=(Expire(clock()),)))
        found = Recovery(engine, one, {}, clock)._dead()
        late = opened[0]
        late.status = Status.OK
        await desk.close(late)
        outcome = await asyncio.gather(
            *(writer.submit(_closing(found, clock())) for writer in (one, two, one, two))
        )
        assert (len(found), sum(outcome)) == (4, 3)
    with engine.connect() as connection:
        assert _ended(connection) == sorted(exchange.id for exchange in opened)
    assert view(engine, late.id).status is Status.OK


async def test_a_live_call_keeps_its_hold_however_long_it_runs(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        exchange = await desk.open(body_of())
        recovery = Recovery(engine, writer, {exchange.id: exchange.started_us}, clock)
        for _ in range(6):
            clock.now += LEASE_US - 1_000_000
            assert await recovery.step() == 0
        settle = Job(
            lambda found: Wrote(type(found.results[0]).__name__),
            ops=(Settle(exchange.id, Amount(tokens=1)),),
        )
        assert await writer.submit(settle) == "Settled"


async def test_an_opening_record_that_cannot_be_read_is_closed_too(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        exchange = await Desk(writer, clock).open(body_of())
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            connection.execute(update(records).values(body=b"edited"))
        clock.now += LEASE_US * 2
        recovery = Recovery(engine, writer, {}, clock)
        assert await recovery.step() == 1
        assert await recovery.step() == 0
    with engine.connect() as connection:
        assert connection.execute(select(calls.c.status, calls.c.micro_usd)).all() == [("interrupted", 0)]
        assert _ended(connection) == [exchange.id]
