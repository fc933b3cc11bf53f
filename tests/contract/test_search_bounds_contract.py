"""What the indexer forgets by itself, and how long a search takes at most; over SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from itertools import count

from sqlalchemy import Engine, update

from llm_proxy.archive.search import SearchWish, search
from llm_proxy.archive.search_indexer import Indexer
from llm_proxy.records.audit_tables import legal_holds, purged
from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.tables import runs
from llm_proxy.retention.held import held_runs
from tests.contract.searched import found, held, index, texts, told, user
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.proxy import until
from tests.stores import Clock, Desk, writing

pytest_plugins = ["tests.postgres"]


async def test_a_run_below_a_held_one_can_still_be_searched(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        for run in ("above", "below", "other"):
            await held(desk, told(f"secret of {run}"), user("tell me"), run=run)
    index(engine, clock)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        parent = {"parent_run_id": "above", "parent_agent_id": "bot"}
        connection.execute(update(runs).where(runs.c.run_id == "below").values(**parent))
        hold = {"agent_id": "bot", "run_id": "above", "by": "dana", "reason": "suit 7"}
        connection.execute(legal_holds.insert().values(**hold, placed_us=clock.now))
        connection.execute(purged.insert().values(epoch=clock.now // DAY_US, at_us=clock.now))
    running = Indexer(engine, "w", clock, held=held_runs)
    running.start()
    try:
        await until(lambda: found(engine, "secret other").hits == (), "the text is forgotten")
    finally:
        await asyncio.to_thread(running.stop)
    assert texts(found(engine, "secret")) == ["secret of below", "secret of above"]


async def test_reading_what_was_found_ends_in_time_and_can_be_gone_on_with(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        for number in range(5):
            await held(Desk(writer, clock), told(f"secret {number}"), user(f"tell me {number}"))
    index(engine, clock)
    before, seen, pages = None, list[str](), 0
    while True:
        ticks = count()
        with engine.connect() as connection:
            wish = SearchWish(text="secret", seconds=2.5, before=before)
            hits = search(connection, wish, lambda ticks=ticks: float(next(ticks)))
        seen, pages = seen + texts(hits), pages + 1
        if hits.before is None:
            break
        assert hits.hits
        assert hits.back_to_us is not None
        before = hits.before
    assert seen == [f"secret {number}" for number in range(4, -1, -1)]
    assert pages > 2
