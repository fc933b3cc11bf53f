"""Caps by day, sums, freezes and events: counted across runs and processes, over either store."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.event import listen as listens_for

from budgets import RunRef
from llm_proxy.identity.lineage import ALONE, Lineage
from llm_proxy.records import bodies
from llm_proxy.records.advancing import run_update
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.evidence import Evidence, RecordKind
from llm_proxy.records.policy_tables import counts
from llm_proxy.records.runstate import RunKey, RunState
from llm_proxy.records.standing import frozen_agent
from llm_proxy.records.tables import records
from tests.contract.judged import POLICY, Bench, bench, pay, rules, told
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.proxy import until
from tests.stores import Clock, body_of

pytest_plugins = ["tests.postgres"]

DAY_US = 86_400_000_000
FREE = POLICY.replace("pay: {effect: write, tier: human-approval", "pay: {effect: write, tier: autonomous")


def used(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {row.cap: row.used for row in connection.execute(select(counts)) if row.used}


async def crowd(one: Bench, two: Bench, replies: int, amount: str) -> Counter[str]:
    """As many replies of one call, in as many runs, at two processes at once: what decided each."""
    houses = [(one, two)[n % 2] for n in range(replies)]
    opened = [await house.open(f"run-{n}") for n, house in enumerate(houses)]

    async def propose(n: int) -> str:
        await houses[n].judge_of(opened[n])((pay(amount),))
        return opened[n].decisions[0].rule

    return Counter(await asyncio.gather(*[propose(n) for n in range(replies)]))


@pytest.mark.parametrize(
    ("caps", "amount", "passing", "rule", "left"),
    [
        ("day: {calls: 7}", "1", 7, "cap:day.calls", {"day.calls": 7}),
        ("day: {calls: 90, writes: 5}", "1", 5, "cap:day.writes", {"day.calls": 5, "day.writes": 5}),
        (
            "sums: [{id: s, tool: pay, field: amount, per: agent-day, max: 1}]",
            "0.1",
            10,
            "sum:s",
            {"sum:s": 1_000_000},
        ),
        (
            "sums: [{id: s, tool: 'p*', field: amount, per: user-day, max: 1}]",
            "0.3333334",
            2,
            "sum:s",
            {"sum:s": 666_668},
        ),
    ],
    ids=["calls", "writes", "exact", "rounded-up"],
)
async def test_a_crowd_passes_no_cap(
    engine: Engine, caps: str, amount: str, passing: int, rule: str, left: dict[str, int]
) -> None:
    clock = Clock()
    async with bench(engine, clock) as one, bench(engine, clock) as two:
        one.rules = two.rules = rules(f"caps: {{{caps}}}\n", base=FREE)
        assert await crowd(one, two, 40, amount) == {"tier:autonomous": passing, rule: 40 - passing}
        assert used(engine) == left
        clock.now += DAY_US
        assert told(await one.judge(pay(amount), run="tomorrow")) == [("allow", "tier:autonomous")]


async def test_siblings_count_in_their_order_and_what_is_denied_is_not_counted(engine: Engine) -> None:
    async with bench(engine) as house:
        house.rules = rules("caps: {day: {calls: 3}}\n", base=FREE)
        assert told(await house.judge(pay(1), pay(tool="wipe"))) == [
            ("allow", "tier:autonomous"),
            ("deny", "prohibited"),
        ]
        assert used(engine) == {"day.calls": 1}
        assert [rule for _, rule in told(await house.judge(pay(1), pay(2), pay(3)))] == [
            "tier:autonomous",
            "tier:autonomous",
            "cap:day.calls",
        ]
        assert used(engine) == {"day.calls": 3}
        assert told(await house.judge(pay(1), run="another")) == [("deny", "cap:day.calls")]


async def test_a_sum_of_a_run_is_its_own(engine: Engine) -> None:
    async with bench(engine) as house:
        house.rules = rules(
            "caps: {sums: [{id: s, tool: pay, field: amount, per: run, max: 10}]}\n", base=FREE
        )
        assert told(await house.judge(pay(7))) == [("allow", "tier:autonomous")]
        assert told(await house.judge(pay(4))) == [("deny", "sum:s")]
        assert told(await house.judge(pay(4), run="run-2")) == [("allow", "tier:autonomous")]
        assert told(await house.judge(pay(-4))) == [("deny", "sum:s")]
        assert told(await house.judge(pay("1e300"))) == [("deny", "sum:s")]


async def test_a_sum_may_ask_and_what_was_approved_counts(engine: Engine) -> None:
    entry = "{id: s, tool: pay, field: amount, per: agent-day, max: 10, then: ask}"
    async with bench(engine) as house:
        house.rules = rules(f"caps: {{sums: [{entry}]}}\n", base=FREE)
        assert told(await house.judge(pay(7))) == [("allow", "tier:autonomous")]
        [asked] = await house.judge(pay(4), run="run-2")
        assert (asked.rule, asked.hits) == ("approval-pending", ("sum:s",))
        assert used(engine) == {"sum:s": 7_000_000}
        await house.say(asked.approval)
        assert told(await house.judge(pay(4), run="run-2")) == [("allow", "approved")]
        assert used(engine) == {"sum:s": 11_000_000}


async def test_the_record_says_what_the_verdict_rested_on(engine: Engine) -> None:
    async with bench(engine) as house:
        house.rules = rules("caps: {day: {calls: 3}}\n", base=FREE)
        await house.judge(pay(1))
        await house.judge(pay(2), run="run-2")
    with engine.connect() as connection:
        found = connection.execute(
            select(records.c.body).where(records.c.kind == RecordKind.VERDICTS.value).order_by(records.c.seq)
        )
        contexts = [bodies.read_verdicts(bytes(body)).context for (body,) in found]
    seen = [(c.counters, c.calls, c.user.id, c.agent.role, c.env) for c in contexts if c is not None]
    assert seen == [({"day.calls": n}, 0, "ada@example.com", "triage", "test") for n in (0, 1)]


async def test_with_the_nth_denial_of_a_run_its_agent_is_frozen(engine: Engine) -> None:
    refreshed: list[bool] = []

    async def frozen() -> None:
        with engine.connect() as connection:
            refreshed.append(frozen_agent(connection, "bot") is not None)

    async with bench(engine) as house:
        house.rules = rules("freeze: {on: {denials_per_run: 3}}\n")
        await house.judge(pay(tool="wipe"), pay(1), run="other", frozen=frozen)
        await house.judge(pay(tool="wipe"), pay(1), frozen=frozen)
        await house.judge(pay(1), pay(2), pay(3), frozen=frozen)  # nobody said no: they wait
        assert refreshed == []
        await house.judge(pay(tool="wipe"), pay(tool="wipe"), frozen=frozen)
        assert refreshed == [True]
        with engine.connect() as connection:
            standing = frozen_agent(connection, "bot")
        assert standing is not None
        assert (standing.by, standing.reason) == (
            "policy",
            "3 tool calls of run run-1 were denied, the last by rule prohibited",
        )


async def test_a_freeze_of_the_run_leaves_the_agent_alone(engine: Engine) -> None:
    async with bench(engine) as house:
        house.rules = rules("freeze: {on: {denials_per_run: 2}, scope: run}\n")
        await house.judge(pay(tool="wipe"), pay(tool="wipe"))
        assert told(await house.judge(pay(tool="look"))) == [("deny", "frozen")]
        assert told(await house.judge(pay(tool="look"), run="run-2")) == [("allow", "tier:autonomous")]
        with engine.connect() as connection:
            assert frozen_agent(connection, "bot") is None


STEP = (
    "sequence: [{id: step, before: {effect: irreversible}, "
    "require: {event: human-checkpoint, within_s: 900}, otherwise: deny}]\n"
)


async def test_an_approval_is_a_checkpoint_of_its_run(engine: Engine) -> None:
    clock = Clock()
    async with bench(engine, clock) as house:
        house.rules = rules(STEP)
        assert told(await house.judge(pay(tool="wire"))) == [("deny", "step")]
        [asked] = await house.judge(pay())
        await house.say(asked.approval)
        assert told(await house.judge(pay(tool="wire"))) == [("allow", "tier:autonomous")]
        assert told(await house.judge(pay(tool="wire"), run="run-2")) == [("deny", "step")]
        clock.now += 901_000_000
        assert told(await house.judge(pay(tool="wire"))) == [("deny", "step")]


async def test_a_checkpoint_that_asks_uses_the_grant_it_was_held_for(engine: Engine) -> None:
    asking = STEP.replace("otherwise: deny", "otherwise: ask")
    async with bench(engine) as house:
        house.rules = rules(asking, base=POLICY.replace("hold_s: 0", "hold_s: 20"))
        polling = asyncio.create_task(house.approvals.run())
        reply = asyncio.create_task(house.judge(pay(tool="wire")))
        await until(lambda: house.approvals.waiting, "the reply waits")
        [row] = house.rows()
        await house.say(row.id)
        assert told(await asyncio.wait_for(reply, 5)) == [("allow", "tier:autonomous")]
        assert house.rows()[0].uses_left == 0
        polling.cancel()


async def test_a_run_below_another_begins_with_its_labels(engine: Engine) -> None:
    async with bench(engine) as house:
        await house.open("above")
        key = RunKey("bot", "above")
        tainted = run_update(RunState(), key, sensitivity=2, untrusted=True)
        await house.writer.submit(Job(lambda _: Wrote(None, Evidence(run_updates=(tainted,))), run=key))
        for run, lineage in (("below", Lineage(ancestors=(RunRef("bot", "above"),))), ("beside", ALONE)):
            exchange = await house.desk.read(body_of(), run)
            exchange.lineage, exchange.placed = lineage, True
            await house.desk.admit(exchange, house.rules)
            state: RunState = await house.writer.submit(
                Job(lambda found: Wrote(found.run), run=RunKey("bot", run))
            )
            taken = (2, True) if run == "below" else (0, False)
            assert (state.sensitivity, state.untrusted) == taken


async def test_who_uses_none_of_it_reads_none_of_it(engine: Engine) -> None:
    """A reply that asks nobody, under a policy without caps by day, costs no statement more."""
    async with bench(engine) as house:
        asked: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
            asked.append(statement)

        exchange = await house.open()
        listens_for(engine, "before_cursor_execute", note)
        await house.judge_of(exchange)((pay(tool="look"),))
        assert told(exchange.decisions) == [("allow", "tier:autonomous")]
        assert any("state_runs" in statement for statement in asked)
        tables = ("state_counts", "state_approvals", "state_run_events")
        assert [statement for statement in asked if any(table in statement for table in tables)] == []
