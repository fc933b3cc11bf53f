"""A call that was damaged in the store holds up no other's spans; over SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio

from sqlalchemy import Engine, text

from llm_proxy.archive.outbox import StoreOutbox
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import Clock, Desk, body_of, writing

pytest_plugins = ["tests.postgres"]


async def test_a_damaged_call_holds_up_no_other(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk, outbox = Desk(writer, clock), StoreOutbox(engine, writer.id, clock)
        calls = [await desk.open(body_of({"role": "user", "content": "x" * 900}))]
        with engine.connect() as connection:
            packed = [row.id for row in connection.execute(text("SELECT id FROM blobs WHERE codec <> 'raw'"))]
        calls += [await desk.open(body_of(user=f"u{n}")) for n in range(3)]
        for call in calls:
            await desk.close(call)
        with engine.begin() as connection:
            junk = "UPDATE blobs SET data = :junk WHERE id = :id"
            assert connection.execute(text(junk), {"junk": b"\0junk", "id": packed[0]}).rowcount == 1
            broken = "UPDATE records SET body = :junk WHERE call_id = :call AND kind = 'call.opened'"
            assert connection.execute(text(broken), {"junk": b"{", "call": calls[1].id}).rowcount == 1
        batch = await asyncio.to_thread(outbox.next, 10)
        assert batch is not None
        told = {item.call.id: item.call for item in batch.items if item.call is not None}
        assert set(told) == {calls[0].id, calls[2].id, calls[3].id}
        assert told[calls[0].id].request is None
        assert told[calls[2].id].request == calls[2].body
