"""From question to answer: an agent's call is held, a person decides, and it goes on or it doesn't."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.approvals_house import House, approvals_house, id_of, served
from tests.e2e.tool_policy_house import Call, body_of, plain
from tests.proxy import ask, headers, target, until
from tests.raw_upstream import Answer, events, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

REFUND = Call("call_refund", "refund", '{"order": "4711", "amount": 120.50}')
WIPE = Call("call_wipe", "wipe", "{}")
PAYOUT = Call("call_payout", "payout", '{"to": "DE89"}')
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("refund", "payout", "wipe")
]
POLICY: dict[str, Any] = {
    "policy": {"id": "held", "version": 1},
    "on_deny": "replace",
    "tools": {
        "refund": {"owner": "finance", "risk": "high", "effect": "write", "tier": "human-approval"},
        "payout": {"effect": "irreversible", "tier": "human-approval", "approval": "quick"},
        "wipe": {"effect": "irreversible", "tier": "autonomous"},
    },
    "sequence": [
        {
            "id": "look-first",
            "before": {"tool": "wipe"},
            "require": {"event": "human-checkpoint", "within_s": 900},
            "otherwise": "deny",
        }
    ],
    "approvals": {
        "default": {"approvers": ["group:leads"], "quorum": 2, "expires_s": 60, "hold_s": 20},
        "quick": {"approvers": ["group:leads"], "expires_s": 1.5, "hold_s": 1},
    },
}


@dataclass
class Stage:
    house: House
    answer: list[Answer]

    def call(
        self, one: Call, run: str, *, stream: bool = True, user: str = "carl@example.com"
    ) -> asyncio.Task[bytes]:
        """An agent's call in `run`, under way; its value is everything that the agent receives."""
        self.answer[:] = [events(*plain([one])) if stream else whole(body_of([one]))]
        return asyncio.create_task(self._receive(run, user, stream=stream))

    async def _receive(self, run: str, user: str, *, stream: bool) -> bytes:
        body = ask("do it", tools=TOOLS, stream=stream)
        told = headers(x_run_id=run, x_user_id=user)
        async with (
            aiohttp.ClientSession() as http,
            http.post(self.house.proxy.url, json=body, headers=told) as reply,
        ):
            return await reply.read()

    async def waiting(self, run: str) -> str:
        """The approval that was opened in `run`."""
        found: list[str] = []

        async def there() -> bool:
            answer = await self.house.send("GET", f"/approvals?run={run}", "dana")
            found[:] = [line["id"] for line in answer.body]
            return bool(found)

        await until(there, f"an approval waits in {run}")
        assert len(found) == 1
        return found[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    answer: list[Answer] = []
    async with raw_upstream(lambda _body: answer[0]) as upstream:
        models = {"m": {"targets": [target("up", upstream.base_url)], "retries": 0}}
        folder = tmp_path_factory.mktemp("held")
        async with approvals_house(folder, policy=POLICY, models=models) as house:
            yield Stage(house, answer)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_two_people_let_a_held_call_go(stage: Stage, stream: bool) -> None:
    house, run = stage.house, f"two-{stream}"
    call = stage.call(REFUND, run, stream=stream)
    id_ = await stage.waiting(run)
    shown = await house.show(id_)
    assert (shown["arguments"], shown["tool"], shown["owner"], shown["risk"], shown["user_id"]) == (
        REFUND.arguments,
        "refund",
        "finance",
        "high",
        "carl@example.com",
    )
    assert (await house.decide(id_, "dana")).status == 200
    await asyncio.sleep(0.4)
    assert not call.done()
    assert (await house.decide(id_, "erin")).body["status"] == "approved"
    received = await asyncio.wait_for(call, 10)
    assert b"call_refund" in received
    assert b"NOT EXECUTED" not in received
    shown = await house.show(id_)
    assert (shown["status"], shown["used"], shown["uses"]) == ("approved", 1, 1)


async def test_a_denial_ends_the_wait_and_the_call_never_reaches_the_agent(stage: Stage) -> None:
    call = stage.call(REFUND, "denied")
    id_ = await stage.waiting("denied")
    await stage.house.decide(id_, "erin", "deny", "wrong customer")
    received = await asyncio.wait_for(call, 10)
    assert b"call_refund" not in received
    assert b"4711" not in received
    assert (await stage.house.show(id_))["status"] == "denied"


async def test_what_nobody_decides_runs_out_and_everybody_hears_of_it(stage: Stage) -> None:
    house = stage.house
    call = stage.call(PAYOUT, "late")
    id_ = await stage.waiting("late")
    received = await asyncio.wait_for(call, 10)
    assert b"call_payout" not in received
    assert b"DE89" not in received
    assert id_.encode() in received

    async def expired() -> bool:
        return (await house.show(id_))["status"] == "expired"

    await until(expired, "it has expired")
    late = await house.decide(id_, "dana")
    assert (late.status, "expired" in late.said) == (409, True)
    events_of = [got.body["data"] for got in house.plain.taken if got.body["type"] == "approval.decided"]
    await until(
        lambda: any(
            got.body["data"].get("id") == id_ and got.body["data"].get("status") == "expired"
            for got in house.plain.taken
        ),
        f"its expiry is told: {events_of}",
        30,
    )


async def test_a_link_of_the_event_lets_a_held_call_go(stage: Stage) -> None:
    house = stage.house
    call = stage.call(REFUND, "linked")
    id_ = await stage.waiting("linked")
    await house.decide(id_, "erin")
    found: dict[str, str] = {}

    def there() -> bool:
        for got in house.linked.taken:
            if (got.body["type"], got.body["data"]["id"]) == ("approval.requested", id_):
                found.update({link["operator"]: link["url"] for link in got.body["data"]["links"]})
        return bool(found)

    await until(there, "the event arrives")
    target_, _, token = served(house.proxy, found[id_of("dana")]).partition("?token=")
    page = await house.page(target_, {"token": token, "decision": "approve", "reason": ""})
    assert page.status == 200
    assert b"call_refund" in await asyncio.wait_for(call, 10)


async def test_the_command_line_without_a_proxy_of_its_own_wakes_the_held_call_too(stage: Stage) -> None:
    """The word is written by another process; the proxy sees it in the store."""
    house = stage.house
    call = stage.call(REFUND, "elsewhere")
    id_ = await stage.waiting("elsewhere")
    await house.decide(id_, "erin")
    house.configure("elsewhere.yaml", 9)
    status, _, err = await house.cli("approvals", "approve", id_, file="elsewhere.yaml")
    assert (status, err) == (0, "")
    assert b"call_refund" in await asyncio.wait_for(call, 10)


async def test_who_asked_can_not_let_it_go(stage: Stage) -> None:
    """The agent's user is an approver too; so is nobody's key."""
    house = stage.house
    call = stage.call(REFUND, "own", user=id_of("dana"))
    id_ = await stage.waiting("own")
    mine = await house.decide(id_, "dana")
    assert (mine.status, mine.code) == (403, "forbidden_role")
    await house.decide(id_, "erin")
    await house.decide(id_, "adam")
    assert b"call_refund" in await asyncio.wait_for(call, 10)


async def test_a_checkpoint_by_hand_is_what_a_rule_waits_for(stage: Stage) -> None:
    house = stage.house
    assert b"call_wipe" not in await stage.call(WIPE, "looked-at")
    status, _, err = await house.cli(
        "runs", "checkpoint", "looked-at", "--reason", "read it", "--agent", "bot"
    )
    assert (status, err) == (0, "")
    assert b"call_wipe" in await stage.call(WIPE, "looked-at")
    assert b"call_wipe" not in await stage.call(WIPE, "another")
