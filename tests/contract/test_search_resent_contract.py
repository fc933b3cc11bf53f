"""Conversations that are resent with every call: what is new is indexed once, whatever came between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Engine

from llm_proxy.archive import calls, search_indexer
from llm_proxy.archive.search_indexer import Indexer
from llm_proxy.exchange import Exchange
from llm_proxy.recording import Recorder
from llm_proxy.records import engine as engine_module
from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.view import Status
from tests.contract.searched import found, indexer, told, user
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.proxy import until
from tests.stores import Clock, Desk, body_of, writing

pytest_plugins = ["tests.postgres"]

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")


class Agent:
    """Sends all that was said with every call."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._recorder = Recorder(
            desk.writer.addresser, b"s" * 32, lambda _: pytest.fail("no policy"), mask_secrets=True
        )
        self.history: list[dict[str, Any]] = []

    async def ask(self, text: str, reply: str) -> Exchange:
        self.history.append(user(text))
        exchange = await self._desk.read(body_of(*self.history), "long")
        await self._recorder.request(exchange, None)
        await self._desk.admit(exchange)
        exchange.emitted.write(told(reply))
        exchange.status = Status.OK
        await self._desk.close(exchange)
        self.history.append({"role": "assistant", "content": reply})
        return exchange


def hits(engine: Engine, text: str) -> int:
    return len(found(engine, text).hits)


async def talk(agent: Agent, *names: str) -> None:
    for name in names:
        await agent.ask(f"asked {name} {'and so on ' * 30}", f"answered {name}")


def index(indexing: Indexer) -> None:
    assert indexing.catch_up(30).records == 0


async def all_indexed(indexing: Indexer) -> None:
    """By its thread."""
    await until(lambda: indexing.behind().records == 0, "everything is indexed")


def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pieces of content are read, each time."""
    numbers: list[int] = []
    fetch = calls.fetch

    def counted(connection: Any, ids: Any) -> dict[bytes, bytes]:
        numbers.append(len(list(ids)))
        return fetch(connection, ids)

    monkeypatch.setattr(calls, "fetch", counted)
    return numbers


async def test_every_message_is_found_once_and_read_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "BUSY_MS", 5_000)  # two that write to one file, on whatever disk
    clock = Clock()
    indexing = indexer(engine, clock)
    async with writing(engine, clock) as writer:
        agent = Agent(Desk(writer, clock))
        indexing.start()
        try:
            await talk(agent, *NUMBERS[:8])
            await all_indexed(indexing)
            numbers = fetched(monkeypatch)
            await talk(agent, NUMBERS[8])
            await all_indexed(indexing)
            assert 0 < sum(numbers) < 8, "what was indexed is read again"
            await talk(agent, *NUMBERS[9:])
            await all_indexed(indexing)
        finally:
            await asyncio.to_thread(indexing.stop)
        for name in NUMBERS:
            assert (hits(engine, f'"asked {name}"'), hits(engine, f'"answered {name}"')) == (1, 1), name


async def test_a_new_indexer_goes_on_where_another_ended(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        agent = Agent(Desk(writer, clock))
        for start in range(0, 12, 4):
            await talk(agent, *NUMBERS[start : start + 4])
            index(indexer(engine, clock, f"w{start}"))
        for name in NUMBERS:
            assert (hits(engine, f'"asked {name}"'), hits(engine, f'"answered {name}"')) == (1, 1), name


async def test_a_batch_that_fails_is_indexed_the_next_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    indexing = indexer(engine, clock)
    add = Indexer._add  # pyright: ignore[reportPrivateUsage]  (a store that fails just then)
    fails = [True]

    def failing(self: Indexer, *told: Any) -> None:
        if fails:
            fails.clear()
            raise OSError("the disk is full")
        add(self, *told)

    monkeypatch.setattr(Indexer, "_add", failing)
    async with writing(engine, clock) as writer:
        await talk(Agent(Desk(writer, clock)), *NUMBERS)
        with pytest.raises(OSError, match="full"):
            indexing.catch_up(30)
        index(indexing)
        assert [hits(engine, f'"asked {name}"') for name in NUMBERS] == [1] * 12


async def test_the_next_day_finds_what_is_resent_then(engine: Engine) -> None:
    clock = Clock()
    indexing = indexer(engine, clock)
    async with writing(engine, clock) as writer:
        agent = Agent(Desk(writer, clock))
        await talk(agent, *NUMBERS[:10])
        index(indexing)
        clock.now += DAY_US
        await talk(agent, *NUMBERS[10:])
        index(indexing)
        since = clock.now - DAY_US // 2
        for name in NUMBERS:
            assert len(found(engine, f'"asked {name}"', since_us=since).hits) == 1, name


@pytest.mark.parametrize("restarted", [False, True], ids=["going on", "restarted"])
async def test_of_a_conversation_that_is_too_large_what_is_new_is_found(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, restarted: bool
) -> None:
    monkeypatch.setattr(search_indexer, "MOST_BYTES", 4_000)
    clock = Clock()
    indexing = indexer(engine, clock)
    async with writing(engine, clock) as writer:
        agent = Agent(Desk(writer, clock))
        await agent.ask("an attachment " + "of much " * 1_000, "answered large")
        index(indexing)
        for name in NUMBERS:
            await talk(agent, name)
            index(indexer(engine, clock, name) if restarted else indexing)
        assert hits(engine, "attachment") == 0
        assert hits(engine, '"answered large"') == 1, "the reply was small"
        # Of a request of few messages none can be left out: the first ones are read once it has more.
        assert [hits(engine, f'"asked {name}"') for name in NUMBERS] == [1] * len(NUMBERS)
        assert [hits(engine, f'"answered {name}"') for name in NUMBERS] == [1] * len(NUMBERS)
