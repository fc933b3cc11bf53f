"""Ends of conversations and traces in the store: found, gone on from once, forgotten; on both stores."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, select

from llm_proxy import journal
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.identity.caller import Agent, Caller
from llm_proxy.identity.headers import Hints
from llm_proxy.records import purge as purge_module
from llm_proxy.records.audit_rows import PrefixRow, TraceRow
from llm_proxy.records.audit_tables import prefixes, traces
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.evidence import Evidence
from llm_proxy.records.ids import uuid7
from llm_proxy.records.prefixes import KEPT_US, load_ends, run_above
from llm_proxy.records.purge import EVERY_US, Purge
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.view import Status
from llm_proxy.runs.lookup import RunLookup
from llm_proxy.runs.stitched import Stitcher
from llm_proxy.stitching import Threads
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, Clock, outage, writing

pytest_plugins = ["tests.postgres"]
BOT = Caller(Agent("bot"), "key")
SECOND = 1_000_000


class Door:
    """Calls from their door to their end, but for what is between."""

    def __init__(self, engine: Engine, writer: Any, clock: Clock, *, strict: bool) -> None:
        self.lookup = RunLookup(engine, lambda: True)
        self.writer = writer
        self.clock = clock
        self.stitcher = self.other_worker(strict=strict)

    def other_worker(self, *, strict: bool = True) -> Stitcher:
        async def stored(agent: str, id_: str) -> None:
            return None

        threads = Threads(b"k" * 32)
        return Stitcher(threads, self.lookup, self.writer.addresser, stored, strict=strict)

    async def came(self, *said: str, at: Stitcher | None = None) -> Exchange:
        now = self.clock()
        messages = [
            {"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(said)
        ]
        exchange = Exchange(uuid7(now), now, OPENAI_CHAT, clock0=0.0, caller=BOT, hints=Hints())
        exchange.body = json.dumps({"model": "m", "messages": messages}).encode()
        exchange.request = OPENAI_CHAT.parse(exchange.body)
        exchange.run_id, exchange.run_inferred = exchange.id, True
        await (at or self.stitcher).join(exchange)
        self.clock.now += 2_000
        return exchange

    async def call(self, *said: str, at: Stitcher | None = None, write: bool = True) -> str:
        """The run of a call, which is replied `Sure.`"""
        exchange = await self.came(*said, at=at)
        await self.write(journal.opened(exchange))
        exchange.status = Status.OK
        exchange.released = [json.dumps(REPLY).encode()]
        rows = exchange.prefixes = (at or self.stitcher).ended(exchange)
        assert len(rows) == 1
        if write:
            await self.write(journal.closed(exchange, self.writer.addresser, self.clock()))
        return exchange.run_id

    async def write(self, evidence: Evidence) -> None:
        await self.writer.submit(Job(lambda _: Wrote(None, evidence)))


REPLY = {
    "id": "c",
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Sure."}}],
}


@asynccontextmanager
async def door(engine: Engine, *, strict: bool = True) -> AsyncGenerator[Door]:
    clock = Clock()
    async with writing(engine, clock) as writer:
        opened = Door(engine, writer, clock, strict=strict)
        yield opened
        opened.lookup.close()


async def test_ends_are_gone_on_from_by_any_worker(engine: Engine) -> None:
    async with door(engine) as at:
        other = at.other_worker()
        first = await at.call("hi")
        second = await at.call("hi", at=other)
        assert await at.call("hi", "Sure.", "a", at=other) == second
        assert await at.call("hi", "Sure.", "b") == first
        assert await at.call("hi", "Sure.", "b", "Sure.", "c", at=other) == first
        assert await at.call("hi", "Sure.", "c", at=other) not in (first, second)


async def test_two_that_come_at_once_go_on_from_two_ends(engine: Engine) -> None:
    async with door(engine) as at:
        begun = {await at.call("hi"), await at.call("hi")}
        came = [await at.came("hi", "Sure.", "a"), await at.came("hi", "Sure.", "b")]  # neither is opened yet
        assert {exchange.run_id for exchange in came} == begun
        assert all(exchange.stitched and exchange.run_inferred for exchange in came)


async def test_where_replies_dont_wait_for_their_record_a_worker_knows_its_own(engine: Engine) -> None:
    async with door(engine, strict=False) as at:
        run = await at.call("hi", write=False)
        assert await at.call("hi", "Sure.", "a") == run
        assert await at.call("hi", "Sure.", "a", at=at.other_worker()) != run


async def test_a_store_that_is_down_refuses_who_needs_it(engine: Engine, url: str) -> None:
    async with door(engine) as at:
        await at.call("hi")
        if url.startswith("sqlite"):
            return  # it is read while nobody can write to it
        with outage(url, engine):
            await at.came("hi")  # has nothing to go on from
            with pytest.raises(ProxyError) as raised:
                await at.came("hi", "Sure.", "a")
        assert raised.value.kind is Kind.STORE_UNAVAILABLE


async def test_what_is_read_and_what_ends_nowhere(engine: Engine) -> None:
    async with door(engine) as at:
        exchange = await at.came("hi")
        for status in (Status.CUT, Status.FAILED, Status.CLIENT_GONE):
            exchange.status = status
            assert at.stitcher.ended(exchange) == ()
        exchange.status = Status.OK
        exchange.released = [b"no reply"]
        assert at.stitcher.ended(exchange) == ()
        exchange.released = [b" " * (2 << 20)]
        assert at.stitcher.ended(exchange) == ()
        off = Stitcher(None, at.lookup, at.writer.addresser, at.stitcher._stored, strict=True)
        alone = await at.came("hi", at=off)
        assert (alone.thread, alone.stitched, off.ended(alone)) == (None, False, ())
        exchange.run_inferred = False
        exchange.thread = None
        await at.stitcher.join(exchange)
        assert exchange.thread is None


async def test_an_end_is_of_one_credential_and_the_newest_come_first(engine: Engine) -> None:
    rows = [
        PrefixRow("bot", "key", b"h" * 32, uuid7(NOW + 2_000 * n), f"r{n}", b"s", NOW + n) for n in range(70)
    ]
    others = [rows[0]._replace(agent_id="other"), rows[0]._replace(key_id="other")]
    async with writing(engine) as writer:
        evidence = Evidence(prefixes=(*rows, *others, rows[5]))
        await writer.submit(Job(lambda _: Wrote(None, evidence)))
    with engine.connect() as connection:
        found = load_ends(connection, "bot", "key", [b"x" * 32, b"h" * 32])
        assert [end.run_id for end in found] == [f"r{n}" for n in range(69, 5, -1)]
        assert {(end.hash, end.system, end.newest == end.call_id) for end in found} == {
            (b"h" * 32, b"s", True)
        }
        assert [end.run_id for end in load_ends(connection, "other", "key", [b"h" * 32])] == ["r0"]
        assert load_ends(connection, "bot", "key", [b"x" * 32]) == []


async def test_runs_of_a_trace(engine: Engine) -> None:
    trace, span = b"t" * 16, b"s" * 8
    rows = [
        TraceRow(trace, agent, run, NOW + n) for n, (agent, run) in enumerate([("bot", "a"), ("ann", "b")])
    ]
    async with writing(engine) as writer:
        await writer.submit(Job(lambda _: Wrote(None, Evidence(traces=(*rows, rows[0]._replace(at_us=1))))))
    with engine.connect() as connection:
        assert run_above(connection, trace, span, RunKey("ann", "b")) == RunKey("bot", "a")
        assert run_above(connection, trace, span, RunKey("bot", "c")) == RunKey("bot", "a")
        assert run_above(connection, trace, span, RunKey("bot", "a")) is None
        assert run_above(connection, b"x" * 16, span, RunKey("bot", "a")) is None


async def test_what_is_old_is_forgotten(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge_module, "PAUSE_S", 0.0)
    monkeypatch.setattr(purge_module, "AT_A_TIME", 3)
    ends = [PrefixRow("bot", "key", b"%032d" % n, uuid7(NOW), "r", b"", NOW + n * SECOND) for n in range(10)]
    seen = [TraceRow(b"%016d" % n, "bot", "r", NOW + n * SECOND) for n in range(10)]
    async with writing(engine) as writer:
        evidence = Evidence(prefixes=tuple(ends), traces=tuple(seen))
        await writer.submit(Job(lambda _: Wrote(None, evidence)))
    clock = Clock(NOW + KEPT_US + 5 * SECOND // 2)
    purge = Purge(engine, "w", clock)

    def left() -> list[list[int]]:
        with engine.connect() as connection:
            columns = (prefixes.c.at_us, traces.c.at_us)
            return [
                sorted((at - NOW) // SECOND for at in connection.execute(select(c)).scalars())
                for c in columns
            ]

    await purge.turn()
    assert left() == [list(range(3, 10))] * 2
    clock.now = NOW + KEPT_US + EVERY_US + 20 * SECOND
    await purge.turn()
    assert left() == [[], []]
    clock.now += 3 * EVERY_US
    lately = TraceRow(b"t" * 16, "bot", "r", clock.now - 2 * EVERY_US)
    async with writing(engine) as writer:
        await writer.submit(Job(lambda _: Wrote(None, Evidence(traces=(lately,)))))
    await Purge(engine, "w2", clock, retention_us=EVERY_US).turn()
    assert left() == [[], []]  # no hash outlives the content that it's of
