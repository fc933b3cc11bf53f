"""What is expected of a model is learnt and kept; clients leave and stores fall silent in a top-up."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Generator
from pathlib import Path

from sqlalchemy import URL, create_engine

from llm_proxy.archive.lengths import MOST_ROWS, newest_lengths
from llm_proxy.counting.lengths import ENOUGH
from llm_proxy.records.tables import METADATA
from llm_proxy.records.view import Status
from tests.e2e.growing_house import CALLERS, LARGEST, LONG, House, growing, remembered
from tests.proxy import until
from tests.stores import outage

pytest_plugins = ["tests.postgres"]

WIDE = 20_000
BUDGETS = [{"agent": "bot", "tokens": 1_000_000}, {"agent": "one", "tokens": WIDE}]


async def _held_for(house: House, model: str) -> int:
    """What the newest call held at first, after one more call of `model`."""
    caller = await house.caller("bot", CALLERS[0], model).asks("warm")
    assert (caller.said, caller.error) == ("so on", None)
    await house.proxy.settled()
    return house.proxy.views(agent="bot")[-1].held["output_tokens"]


async def test_a_new_model_holds_its_worst_case_until_it_is_known(tmp_path: Path) -> None:
    async with growing(tmp_path, BUDGETS) as house:
        assert await _held_for(house, "m") == 1_024
        assert await _held_for(house, "new") == LARGEST
        for _ in range(ENOUGH - 2):
            assert (await house.caller("bot", CALLERS[0], "new").asks("warm")).error is None
        assert await _held_for(house, "new") == LARGEST
        assert await _held_for(house, "new") == 1_024
        house.proxy.kill9()
        await house.proxy.restart()
        assert await _held_for(house, "new") == 1_024


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    with contextlib.closing(sqlite3.connect(folder / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_a_client_that_leaves_in_a_top_up_is_charged_and_nothing_stays_held(tmp_path: Path) -> None:
    async with growing(tmp_path, BUDGETS, store_may_fail=True) as house:
        caller = house.caller("one", CALLERS[0])
        asking = asyncio.create_task(caller.asks("go on slowly"))
        await asyncio.wait_for(caller.began.wait(), 10)
        with _locked(tmp_path):
            said = ""
            while said != caller.said or not said:
                said = caller.said
                await asyncio.sleep(0.2)
            assert not asking.done()
            asking.cancel()
            await asyncio.sleep(0.2)
        await house.proxy.settled()
        view = house.only_view("one")
        assert view.status is Status.CLIENT_GONE
        used, held = house.tokens("one")
        assert held == 0
        assert len(said) / 3 <= used <= WIDE
        assert house.proxy.held_amounts() == 0
        # The next stream finds nothing in its way.
        again = await house.caller("one", CALLERS[0]).asks("go on")
        assert (len(again.said), again.error) == (LONG * 3, None)


async def test_a_store_that_is_down_ends_the_stream_with_what_is_held(
    postgres_server: URL, tmp_path: Path
) -> None:
    from tests.postgres import fresh_database  # noqa: PLC0415 (pytest must load it first, as a plugin)

    with fresh_database(postgres_server) as url:
        store = url.render_as_string(hide_password=False)
        async with growing(tmp_path, BUDGETS, store=store, store_may_fail=True) as house:
            caller = house.caller("one", CALLERS[0])
            asking = asyncio.create_task(caller.asks("go on slowly"))
            await asyncio.wait_for(caller.began.wait(), 10)
            with outage(store, house.proxy.engine):
                await asyncio.wait_for(asking, 60)
            house.proxy.engine.dispose()  # its connections were cut too
            assert caller.error is not None
            assert caller.error.code == "store_unavailable"
            assert 500 < len(caller.said) / 3 <= 1_024, "it used what it held, and no more"

            async def answers() -> bool:
                return (await house.caller("one", CALLERS[0]).asks("warm")).error is None

            await until(answers, "calls are answered again")
            used, held = house.tokens("one")
            assert used + held <= WIDE


def test_many_calls_dont_slow_a_start(tmp_path: Path) -> None:
    """The newest are found by an index, whatever else is there."""
    engine = create_engine(f"sqlite:///{tmp_path / 'many.db'}")
    METADATA.create_all(engine)
    remembered(engine, "other", 900, 100_000)
    remembered(engine, "m", 5, MOST_ROWS)
    with engine.connect() as connection:
        began = time.perf_counter()
        found = newest_lengths(connection, {"m": ("openai", "*"), "other": ("openai", "x")})
        assert time.perf_counter() - began < 1.0
    assert len(found) == MOST_ROWS
    assert ("openai", "m", 5) in found
    engine.dispose()
