"""Grants, votes and expiry that meet, of two processes with a connection each: one outcome, no deadlock."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Engine, text

from llm_proxy.approving import Rejected, Voted, expire
from tests.contract.judged import POLICY, Bench, bench, pay, rules
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import Clock

pytest_plugins = ["tests.postgres"]

RUNS = 30


def deadlocks(engine: Engine) -> int:
    if engine.dialect.name != "postgresql":
        return 0
    with engine.connect() as connection:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return connection.execute(text(query)).scalar_one()


async def ask(house: Bench, n: int) -> str:
    [decision] = await house.judge(pay(), run=f"run-{n}", agent=f"bot-{n}")
    return decision.approval


@pytest.mark.parametrize("capped", ["", "caps: {day: {calls: 900, writes: 900}}\n"], ids=["plain", "capped"])
async def test_a_grant_that_two_processes_take_at_once_lets_one_call_go(engine: Engine, capped: str) -> None:
    clock = Clock()
    async with bench(engine, clock) as one, bench(engine, clock) as two:
        one.rules = two.rules = rules(capped)
        ids = await asyncio.gather(*[ask((one, two)[n % 2], n) for n in range(RUNS)])
        await asyncio.gather(*[one.say(id_) for id_ in ids])

        async def propose(house: Bench, n: int) -> tuple[int, str]:
            [decision] = await house.judge(pay(), run=f"run-{n}", agent=f"bot-{n}")
            return n, decision.rule

        orders = [(house, n) for n in range(RUNS) for house in (one, two)]
        orders = orders[::2] + orders[:0:-2]  # each process meets the runs in its own order
        found = Counter(await asyncio.gather(*[propose(*order) for order in orders]))
        assert found == {(n, rule): 1 for n in range(RUNS) for rule in ("approved", "approval-pending")}
        rows = {row.id: row.uses_left for row in one.rows()}
        assert [rows[id_] for id_ in ids] == [0] * RUNS
    assert deadlocks(engine) == 0


async def test_a_vote_meets_the_expiry_and_the_use(engine: Engine) -> None:
    clock = Clock()
    async with bench(engine, clock) as one, bench(engine, clock) as two:
        one.rules = two.rules = rules("caps: {day: {calls: 900}}\n", base=POLICY)
        ids = await asyncio.gather(*[ask((one, two)[n % 2], n) for n in range(RUNS)])
        by_id = {row.id: row for row in one.rows()}
        late = set(ids[::2])
        sooner = [id_ for id_ in ids if id_ not in late]
        clock.now += 899_999_000

        async def act(house: Bench, n: int, what: str) -> Any:
            match what:
                case "vote":
                    return await house.say(ids[n], f"{id(house)}@example.com")
                case "expire":  # as another machine, whose clock is ahead
                    at = clock() + (2_000 if ids[n] in late else 0)
                    return await house.writer.submit(expire(by_id[ids[n]], at))
                case _:
                    return (await house.judge(pay(), run=f"run-{n}", agent=f"bot-{n}"))[0].rule

        acts = [
            (house, n, what)
            for n in range(RUNS)
            for what in ("vote", "expire", "use")
            for house in (one, two)
        ]
        acts = acts[::2] + acts[:0:-2]
        said = await asyncio.gather(*[act(*one_act) for one_act in acts])
        of = {id_: [out for (_, n, _), out in zip(acts, said, strict=True) if ids[n] == id_] for id_ in ids}
        rows = {row.id: row for row in one.rows()}
        for id_, outcomes in of.items():
            voted = sum(isinstance(out, Voted) for out in outcomes)
            expired = sum(out is True for out in outcomes)
            assert (voted, expired) in ([(1, 0), (0, 1)] if id_ in late else [(1, 0)])
            assert sum(isinstance(out, Rejected) for out in outcomes) == 2 - voted
            assert outcomes.count("approved") == voted - rows[id_].uses_left
            assert rows[id_].status == ("approved" if voted else "expired")
        assert {rows[id_].status for id_ in sooner} == {"approved"}
    assert deadlocks(engine) == 0
