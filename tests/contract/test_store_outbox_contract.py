"""Which calls the outbox hands out, over a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio

from sqlalchemy import Engine

from llm_proxy.archive.outbox import StoreOutbox
from tests.contract.stored import count
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.exported import unsent
from tests.stores import Clock, Desk, body_of, writing

pytest_plugins = ["tests.postgres"]


async def test_the_outbox_passes_over_no_call_of_either_writer(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as one, writing(engine, clock) as two:
        desks = [Desk(one, clock), Desk(two, clock)]
        outbox = StoreOutbox(engine, one.id, clock)
        sent: list[str] = []

        def drain(most: int) -> None:
            while (batch := outbox.next(most)) is not None:
                assert len(batch.items) <= most
                sent.extend(item.id for item in batch.items)
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
        assert waiting.count == unsent(engine) > 0
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
            sent += [item.id for item in batch.items]
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
        outbox.dead_letter(first.items[0], "x" * 5000)
        outbox.dead_letter(first.items[0], "again")
    with engine.connect() as connection:
        assert count(connection, "state_dead_letters") == 1
