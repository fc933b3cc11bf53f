"""Asks, what people say to them, and what a grant lets through: over a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, select

from llm_proxy import judge as judging
from llm_proxy.approving import Rejected, Voted, Why, expire
from llm_proxy.errors import ProxyError
from llm_proxy.records.tables import records
from tests.contract.judged import POLICY, Bench, bench, pay, rules, told
from tests.contract.stored import count, view
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.proxy import until
from tests.stores import Clock

pytest_plugins = ["tests.postgres"]

PENDING, APPROVED = [("deny", "approval-pending")], [("allow", "approved")]
HELD = POLICY.replace("hold_s: 0", "hold_s: 20")


async def granted(house: Bench) -> str:
    """An approval of `pay(5)` that a person gave."""
    [decision] = await house.judge(pay())
    assert told([decision]) == PENDING
    outcome = await house.say(decision.approval)
    assert isinstance(outcome, Voted)
    assert outcome.approval.status == "approved"
    return decision.approval


async def test_a_grant_lets_its_action_through_once(engine: Engine) -> None:
    async with bench(engine) as house:
        id_ = await granted(house)
        [decision] = await house.judge(pay("5"))
        assert told([decision]) == APPROVED
        assert (decision.approval, decision.hits) == (id_, ("tier:human-approval",))
        assert told(await house.judge(pay())) == PENDING
        assert [(row.status, row.uses_left) for row in house.rows()] == [("approved", 0), ("pending", 0)]
        assert house.rows()[0].arguments == '{"amount": 5}'
        with engine.connect() as connection:
            kinds = Counter(connection.execute(select(records.c.kind)).scalars())
        names = ("requested", "voted", "decided", "used")
        assert [kinds[f"approval.{name}"] for name in names] == [2, 1, 1, 1]


SPELT_OTHERWISE = POLICY.replace("args: {type: object}", 'args: {type: object, description: ""}')
BREAKS: dict[str, Callable[[], dict[str, Any]]] = {
    "another agent": lambda: {"agent": "other"},
    "another run": lambda: {"run": "run-2"},
    "another tool": lambda: {"calls": pay(tool="pay_more")},
    "other arguments": lambda: {"calls": pay("5.01")},
    "another registry entry": lambda: {"by": rules(base=SPELT_OTHERWISE)},
    "another policy": lambda: {"by": rules("# a comment\n")},
}


@pytest.mark.parametrize("how", BREAKS)
async def test_a_grant_lets_nothing_else_through(engine: Engine, how: str) -> None:
    asking = POLICY.replace("tools:\n", "tools:\n  pay_more: {effect: write, tier: human-approval}\n")
    async with bench(engine) as house:
        house.rules = rules(base=asking) if how == "another tool" else house.rules
        id_ = await granted(house)
        broken = BREAKS[how]()
        call = broken.pop("calls", pay())
        assert told(await house.judge(call, **broken)) == PENDING
        assert house.row(id_).uses_left == 1
        assert told(await house.judge(pay())) == APPROVED


async def test_a_grant_ends(engine: Engine) -> None:
    clock = Clock()
    async with bench(engine, clock) as house:
        await granted(house)
        clock.now += 300_000_000
        assert told(await house.judge(pay())) == PENDING


async def test_one_grant_and_a_hundred_calls_at_once(engine: Engine) -> None:
    clock = Clock()
    async with bench(engine, clock) as one, bench(engine, clock) as two:
        await granted(one)
        opened = [await house.open() for house in (one, two) * 50]

        async def propose(house: Bench, n: int) -> str:
            judge = house.judge_of(opened[n])
            for _ in range(20):
                with suppress(ProxyError):  # another process was faster too often: as an agent, again
                    await judge((pay(),))
                    break
            return opened[n].decisions[0].rule

        found = Counter(await asyncio.gather(*[propose((one, two)[n % 2], n) for n in range(100)]))
        assert found == {"approved": 1, "approval-pending": 99}
        assert [row.status for row in one.rows()] == ["approved", "pending"]


async def test_an_action_waits_for_one_approval_however_often_it_comes(engine: Engine) -> None:
    async with bench(engine) as house:
        decisions = await house.judge(pay(), pay(), pay(6))
        assert len({one.approval for one in decisions}) == 2
        again = await house.judge(pay())
        assert again[0].approval == decisions[0].approval
        assert len(house.rows()) == 2


async def test_a_no_holds_until_its_time_is_over(engine: Engine) -> None:
    clock = Clock()
    async with bench(engine, clock) as house:
        [decision] = await house.judge(pay())
        await house.say(decision.approval, word="deny")
        assert told(await house.judge(pay())) == [("deny", "approval-denied")]
        assert len(house.rows()) == 1
        clock.now += 900_000_000
        assert told(await house.judge(pay())) == PENDING


async def test_who_may_vote_and_how_often(engine: Engine) -> None:
    clock = Clock()
    async with bench(engine, clock) as house:
        house.rules = rules(base=POLICY.replace("expires_s", "quorum: 2, expires_s"))
        [decision] = await house.judge(pay())
        id_ = decision.approval

        async def refused(who: str, word: str = "approve") -> Why | None:
            outcome = await house.say(id_, who, word)  # type: ignore[arg-type]
            return outcome.why if isinstance(outcome, Rejected) else None

        assert await refused("Ada@Example.com") is Why.REQUESTER
        assert await refused("\uff21da@\uff25xample.com") is Why.REQUESTER  # full-width letters
        assert await refused("bot") is Why.REQUESTER
        assert await refused("dana@example.com") is None
        assert house.row(id_).status == "pending"
        assert await refused("DANA@example.com", "deny") is Why.TWICE
        assert await refused("erin@example.com") is None
        assert house.row(id_).status == "approved"
        assert await refused("finn@example.com", "deny") is Why.DECIDED
        assert told(await house.judge(pay())) == APPROVED
        [late] = await house.judge(pay(7))
        id_ = late.approval
        clock.now += 900_000_000
        assert await refused("dana@example.com") is Why.EXPIRED
        assert await house.writer.submit(expire(house.row(id_), clock()))
        assert house.row(id_).status == "expired"
        assert not await house.writer.submit(expire(house.row(id_), clock()))


async def test_votes_of_two_processes_at_once_decide_once(engine: Engine) -> None:
    clock = Clock()
    async with bench(engine, clock) as one, bench(engine, clock) as two:
        one.rules = rules(base=POLICY.replace("expires_s", "quorum: 2, expires_s"))
        [decision] = await one.judge(pay())
        people = [f"p{n}@example.com" for n in range(20)]
        said = await asyncio.gather(
            *[(one, two)[n % 2].say(decision.approval, who) for n, who in enumerate(people)]
        )
        counted = [outcome for outcome in said if isinstance(outcome, Voted)]
        assert len(counted) == 2
        assert {outcome.why for outcome in said if isinstance(outcome, Rejected)} == {Why.DECIDED}
        with engine.connect() as connection:
            assert count(connection, "state_votes") == 2


async def test_a_reply_is_held_until_people_have_spoken(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "KEEP_ALIVE_S", 0.05)
    alive: list[int] = []

    async def keep_alive() -> None:
        alive.append(1)

    async with bench(engine) as house, bench(engine, house.clock) as other:
        house.rules = rules(base=HELD)
        polling = asyncio.create_task(house.approvals.run())
        reply = asyncio.create_task(house.judge(pay(1), pay(2, tool="look"), pay(3), keep_alive=keep_alive))
        await until(lambda: house.approvals.waiting == 2 and len(alive) > 1, "the reply waits")
        with engine.connect() as connection:
            assert count(connection, "state_tool_calls") == 0
        first, second = house.rows()
        await other.say(first.id)
        await asyncio.sleep(0.4)
        assert not reply.done()
        # Another reply of the run is judged meanwhile.
        assert told(await house.judge(pay(9, tool="look"))) == [("allow", "tier:autonomous")]
        await other.say(second.id, word="deny")
        decisions = await asyncio.wait_for(reply, 5)
        assert told(decisions) == [
            ("allow", "approved"),
            ("allow", "tier:autonomous"),
            ("deny", "approval-denied"),
        ]
        assert house.approvals.waiting == 0
        polling.cancel()


async def test_a_caller_who_leaves_while_held_leaves_nothing_behind(engine: Engine) -> None:
    async with bench(engine) as house:
        house.rules = rules(base=HELD)
        reply = asyncio.create_task(house.judge(pay()))
        await until(lambda: house.approvals.waiting, "the reply waits")
        reply.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reply
        assert house.approvals.waiting == 0
        [row] = house.rows()
        assert row.status == "pending"
        with engine.connect() as connection:
            assert count(connection, "state_tool_calls") == 0
        await house.say(row.id)
        assert told(await house.judge(pay())) == APPROVED


async def test_what_is_denied_by_now_stays_denied_whatever_was_approved(engine: Engine) -> None:
    once = "caps: {run: {writes: 1}}\n"
    async with bench(engine) as house:
        house.rules = rules(once)
        first = await house.judge(pay(1))
        second = await house.judge(pay(2))
        for decision in (*first, *second):
            await house.say(decision.approval)
        assert told(await house.judge(pay(1))) == APPROVED
        assert told(await house.judge(pay(2))) == [("deny", "cap:run.writes")]
        assert house.row(second[0].approval).uses_left == 1


async def test_in_shadow_nobody_is_asked(engine: Engine) -> None:
    async with bench(engine) as house:
        house.rules = rules(base=POLICY.replace("version: 1", "version: 1, mode: shadow"))
        exchange = await house.open()
        assert await house.judge_of(exchange)((pay(),)) == {}
        assert told(exchange.decisions) == [("ask", "tier:human-approval")]
        assert house.rows() == []
        [seen] = view(engine, exchange.id).decisions
        assert (seen.decision, seen.shadow, seen.released) == ("ask", True, True)


async def test_without_anybody_who_may_approve_an_ask_is_a_denial(engine: Engine) -> None:
    async with bench(engine) as house:
        assert told(await house.judge(pay(), by=rules(base=POLICY.split("approvals:")[0]))) == [
            ("deny", "no-approver")
        ]
        assert house.rows() == []


async def test_with_error_the_refusal_names_the_approval(engine: Engine) -> None:
    async with bench(engine) as house:
        house.rules = rules(base=HELD.replace("replace", "error").replace("hold_s: 20", "hold_s: 0.1"))
        with pytest.raises(ProxyError, match=r"waiting for approval apr_[0-9a-f]{32}"):
            await house.judge(pay())
        with pytest.raises(ProxyError, match="prohibited"):  # refused whole: nothing to hold it for
            await house.judge(pay(tool="wipe"), pay(8))
