"""What is kept of a call, once, and how it reads back, over a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import io
import random

import pytest
from sqlalchemy import Engine, func, select

from llm_proxy import journal
from llm_proxy.archive.calls import call_views
from llm_proxy.chat.events import Usage
from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Spent
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.blobs import DAY_US, epoch_of
from llm_proxy.records.large import LARGE
from llm_proxy.records.tables import blobs, calls, salts
from llm_proxy.records.view import CostLabel, Problem, Status
from tests.contract.stored import REPLY, count, noting, raises, record, view
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, Clock, Desk, body_of, faults_of_chain, writing

pytest_plugins = ["tests.postgres"]


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
            await writer.submit(raises(ValueError("poison")))
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
