"""The worker's purge: which counters stay, who takes a turn, and when; over SQLite and a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from budgets import METADATA, Expire, Held, Hold, Settle
from llm_proxy.records import purge as purge_module
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.purge import EVERY_US, KEPT_US, Purge
from tests.contract.ledgers import ONE, bounds_of, limit
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.proxy import until
from tests.stores import NOW, Clock, outage, writing

pytest_plugins = ["tests.postgres"]

SHORT = ("minute", "hour", "24h")
LONG = ("day", "month", "run", "lifetime")
HOUR_US = 3_600_000_000
LATE = NOW + KEPT_US + 26 * HOUR_US
"""When all short spans of `NOW` have ended for longer than they are kept."""
counters = METADATA.tables["state_counters"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge_module, "PAUSE_S", 0.0)


def keys_of(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(select(counters.c.key)).scalars())


def windows(keys: Iterable[str]) -> set[str]:
    return {key.partition("|")[0] for key in keys}


async def spend(engine: Engine, *names: str, agents: int = 1) -> None:
    limits = [limit(name, name, requests=1_000) for name in names]
    ops = [
        op
        for agent in range(agents)
        for id_, bounds in [(f"h{agent}", bounds_of(*limits, agent=f"a{agent}"))]
        for op in (Hold(id_, bounds, ONE, ONE, NOW + 1), Settle(id_, ONE))
    ]
    async with writing(engine) as writer:
        await writer.submit(Job(lambda _: Wrote(None), ops=tuple(ops)))


async def test_what_ended_over_forty_days_ago_goes_and_all_else_stays(engine: Engine) -> None:
    await spend(engine, *SHORT, *LONG)
    before = keys_of(engine)
    early = Purge(engine, "early", Clock(NOW + KEPT_US - HOUR_US))
    assert await early.turn() == 0
    deleted = await Purge(engine, "late", Clock(LATE)).turn()
    left = keys_of(engine)
    assert windows(before - left) == set(SHORT)
    assert windows(left) == set(LONG)
    assert deleted == len(before - left)


async def test_a_turn_has_bounded_steps_and_the_next_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge_module, "AT_A_TIME", 4)
    monkeypatch.setattr(purge_module, "STEPS", 3)
    await spend(engine, "minute", agents=30)
    clock = Clock(LATE)
    purge, turns = Purge(engine, "one", clock), list[int]()
    while keys_of(engine):
        turns.append(await purge.turn())
        clock.now += EVERY_US
        assert len(turns) < 9
    assert turns == [12, 12, 6]
    await spend(engine, "minute", agents=2)
    assert await purge.turn() == 2, "after the last it begins anew"


async def test_of_many_processes_one_takes_a_turn_every_ten_minutes(engine: Engine) -> None:
    clock = Clock(LATE)
    processes = [Purge(engine, f"process-{n}", clock) for n in range(3)]
    for _ in range(3):
        await spend(engine, "minute")
        assert sorted(await asyncio.gather(*(purge.turn() for purge in processes))) == [0, 0, 1]
        await spend(engine, "minute")
        clock.now += EVERY_US - 1_000
        assert await Purge(engine, "another", clock).turn() == 0, "not ten minutes have passed"
        clock.now += 2_000
        assert await Purge(engine, f"new-{clock.now}", clock).turn() == 1
        clock.now += EVERY_US + 1_000


async def test_a_counter_that_is_held_or_used_meanwhile_is_whole(engine: Engine) -> None:
    bounds = bounds_of(limit(window="minute", requests=1))
    purge, clock = Purge(engine, "one", Clock(LATE)), Clock()
    async with writing(engine, clock) as writer:

        async def apply(op: Hold | Settle | Expire) -> object:
            found: list[object] = []
            await writer.submit(Job(lambda seen: (found.extend(seen.results), Wrote(None))[1], ops=(op,)))
            return found[-1]

        assert isinstance(await apply(Hold("a", bounds, ONE, ONE, NOW + 1)), Held)
        assert await purge.turn() == 0, "held"
        await apply(Settle("a", ONE))
        assert not isinstance(await apply(Hold("b", bounds, ONE, ONE, NOW + 1)), Held)
        assert await purge.turn() == 1
        assert isinstance(await apply(Hold("c", bounds, ONE, ONE, NOW + 1)), Held), (
            "the writer's memory of it"
        )


async def test_it_outlives_an_outage(url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await spend(engine, "minute")
    with outage(url, engine), pytest.raises((SQLAlchemyError, OSError)):
        await Purge(engine, "one", Clock(LATE)).turn()
    failing = [True]

    async def turn(self: Purge) -> int:
        if failing:
            failing.pop()
            raise OSError("gone")
        return await real(self)

    real = Purge.turn
    monkeypatch.setattr(Purge, "turn", turn)
    monkeypatch.setattr(purge_module, "EVERY_US", 10_000)
    task = asyncio.create_task(Purge(engine, "two", Clock(LATE)).run())
    await until(lambda: not keys_of(engine), "the counter is deleted")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
