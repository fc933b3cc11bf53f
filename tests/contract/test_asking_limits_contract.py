"""How many approvals may wait at once, and replies that are released whole or not at all."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from sqlalchemy import Engine, select

from llm_proxy import judging
from llm_proxy.errors import ProxyError
from llm_proxy.records import engine as engine_module
from llm_proxy.records.policy_tables import counts
from tests.contract.judged import POLICY, Bench, bench, pay, rules, told
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import Clock

pytest_plugins = ["tests.postgres"]

PENDING, FULL = "approval-pending", "too-many-approvals"


async def test_a_run_asks_so_many_questions_and_no_more(engine: Engine) -> None:
    clock = Clock()
    async with bench(engine, clock) as house:
        decisions = await house.judge(*[pay(n) for n in range(25)])
        assert [one.rule for one in decisions] == [PENDING] * 20 + [FULL] * 5
        assert (decisions[-1].approval, decisions[-1].hits) == ("", ("tier:human-approval",))
        assert told(await house.judge(pay(3))) == [("deny", PENDING)]  # it waits already
        assert told(await house.judge(pay(30))) == [("deny", FULL)]
        assert told(await house.judge(pay(30), run="another")) == [("deny", PENDING)]
        await house.say(decisions[0].approval, word="deny")
        assert [rule for _, rule in told(await house.judge(pay(31), pay(32)))] == [PENDING, FULL]
        await house.say(decisions[1].approval)
        assert [one.rule for one in await house.judge(pay(1), pay(33), pay(34))] == [
            "approved",
            PENDING,
            FULL,
        ]
        clock.now += 900_000_000  # none of them waits any more, whether or not it is marked
        assert told(await house.judge(pay(40))) == [("deny", PENDING)]
        assert len(house.rows()) == 24


async def test_an_agent_asks_so_many_over_all_its_runs_and_processes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "MOST_PER_AGENT", 30)
    monkeypatch.setattr(engine_module, "BUSY_MS", 5_000)  # two writers, each with as much as it can take
    clock = Clock()
    async with bench(engine, clock) as one, bench(engine, clock) as two:
        houses = [(one, two)[n % 2] for n in range(80)]
        opened = [await house.open(f"run-{n}") for n, house in enumerate(houses)]

        async def propose(house: Bench, n: int) -> str:
            await house.judge_of(opened[n])((pay(n),))
            return opened[n].decisions[0].rule

        found = Counter(await asyncio.gather(*[propose(house, n) for n, house in enumerate(houses)]))
        assert found == {PENDING: 30, FULL: 50}
        assert told(await one.judge(pay(), agent="other")) == [("deny", PENDING)]
    with engine.connect() as connection:
        assert [row for row in connection.execute(select(counts)) if row.used] == []


async def test_a_refused_reply_counts_for_nothing_and_a_flood_freezes_nobody(engine: Engine) -> None:
    base = POLICY.replace("replace", "error").replace(
        "pay: {effect: write, tier: human",
        "give: {effect: write, tier: autonomous}\n  pay: {effect: write, tier: human",
    )
    caps = (
        "caps: {day: {calls: 2}, sums: [{id: s, tool: give, field: amount, per: run, max: 9}]}\n"
        "freeze: {on: {denials_per_run: 2}}\n"
    )
    async with bench(engine) as house:
        house.rules = rules(caps, base=base)
        with pytest.raises(ProxyError, match="'wipe' was denied by rule 'prohibited'"):
            await house.judge(pay(9, tool="give"), pay(8, tool="look"), pay(tool="wipe"))
        with engine.connect() as connection:
            assert [row for row in connection.execute(select(counts)) if row.used] == []
        # One denial, and what went with it is none.
        assert told(await house.judge(pay(9, tool="give"), pay(tool="look"))) == [
            ("allow", "tier:autonomous"),
            ("allow", "tier:autonomous"),
        ]
