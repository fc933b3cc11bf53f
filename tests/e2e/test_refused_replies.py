"""What `on_deny: error` refuses as a whole leaves nothing: no grant used, no receipt, nothing counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.approvals_house import House, approvals_house
from tests.e2e.tool_policy_house import Call, body_of
from tests.proxy import ask, headers, target
from tests.raw_upstream import Answer, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

REFUND = Call("call_refund", "refund", '{"order": "4711"}')
BAD = Call("call_bad", "wipe", "{}")
OK = Call("call_ok", "look", '{"n": 1}')
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("refund", "wipe", "look", "note")
]
ALL = {"tool_calls": 3, "writes": 1}
POLICY: dict[str, Any] = {
    "policy": {"id": "whole", "version": 1},
    "on_deny": "error",
    "declare": "pass",
    "tools": {
        "refund": {"effect": "write", "tier": "human-approval"},
        "look": {"effect": "read", "tier": "autonomous", "result": {"trust": "internal"}},
        "note": {"effect": "write", "tier": "autonomous"},
        "wipe": {"effect": "irreversible", "tier": "prohibited"},
    },
    "caps": {
        "day": {"calls": 1000},
        "sums": [{"id": "spent", "tool": "look", "field": "n", "per": "run", "max": 10}],
    },
    "approvals": {"default": {"approvers": ["group:leads"], "expires_s": 60, "hold_s": 0}},
}


@dataclass
class Stage:
    house: House
    answer: list[Answer]

    async def send(self, method: str, path: str, run: str, body: Any = None) -> tuple[int, Any]:
        url, told = self.house.proxy.origin + path, headers(x_run_id=run)
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, url, json=body, headers=told) as reply,
        ):
            return reply.status, await reply.json(content_type=None)

    async def model(self, run: str, *calls: Call) -> tuple[int, Any]:
        self.answer[:] = [whole(body_of(list(calls)))]
        return await self.send("POST", "/v1/chat/completions", run, ask("do it", tools=TOOLS, max_tokens=99))

    async def receipt(self, run: str, call: Call) -> int:
        return (await self.send("GET", f"/v1/runs/{run}/receipts/{call.id}", run))[0]

    async def left(self, run: str) -> Any:
        left = (await self.send("GET", f"/v1/runs/{run}", run))[1]["left"]
        return {name: left[name] for name in ALL}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    answer: list[Answer] = []
    async with raw_upstream(lambda _body: answer[0]) as upstream:
        models = {"m": {"targets": [target("up", upstream.base_url)], "retries": 0}}
        limits = [{"id": "gate", "agent": "bot", "window": "run", "tool_calls": 3, "writes": 1}]
        folder = tmp_path_factory.mktemp("refused")
        async with approvals_house(folder, policy=POLICY, models=models, budgets=limits) as house:
            yield Stage(house, answer)


async def test_a_denied_sibling_has_nothing_charged_used_or_signed(stage: Stage) -> None:
    await stage.model("burnt", REFUND)
    [line] = (await stage.house.send("GET", "/approvals?run=burnt", "dana")).body
    assert (await stage.house.decide(line["id"], "dana")).status == 200
    looked = OK._replace(arguments='{"n": 7}')
    status, refused = await stage.model("burnt", looked, REFUND, BAD)
    assert (status, refused["error"]["code"]) == (403, "policy_denied")
    assert "'wipe' was denied by rule 'prohibited'" in refused["error"]["message"]
    assert (await stage.house.show(line["id"]))["used"] == 0
    assert [await stage.receipt("burnt", call) for call in (OK, REFUND)] == [404, 404]
    assert await stage.left("burnt") == ALL
    # All of it is there still: the sum, the writes, the grant.
    status, _ = await stage.model("burnt", looked, REFUND)
    assert status == 200
    assert (await stage.house.show(line["id"]))["used"] == 1
    assert [await stage.receipt("burnt", call) for call in (OK, REFUND)] == [200, 200]


async def test_what_a_budget_refuses_leaves_the_siblings_uncharged(stage: Stage) -> None:
    notes = [Call(f"call_{n}", "note", "{}") for n in range(2)]
    status, refused = await stage.model("full", notes[0], OK, notes[1], OK._replace(id="call_last"))
    assert status == 403
    assert "budget:gate" in refused["error"]["message"]
    [view] = stage.house.proxy.views(run="full")
    assert Counter(one.rule for one in view.decisions) == {"sibling-denied": 3, "budget:gate": 1}
    assert not any(one.released for one in view.decisions)
    assert await stage.left("full") == ALL
    assert (await stage.model("full", notes[0], OK))[0] == 200
    assert (await stage.left("full"))["writes"] == 0


async def test_an_agent_cannot_open_questions_without_end(stage: Stage) -> None:
    async def check(n: int) -> str:
        body = {"tool": "refund", "arguments": {"order": str(n)}, "tool_call_id": f"c{n}"}
        return (await stage.send("POST", "/v1/actions/check", "flood", body))[1]["rule"]

    found = Counter(await asyncio.gather(*[check(n) for n in range(60)]))
    assert found == {"approval-pending": 20, "too-many-approvals": 40}
    waiting = (await stage.house.send("GET", "/approvals?run=flood&limit=200", "dana")).body
    assert len(waiting) == 20
    assert (await stage.house.decide(waiting[0]["id"], "dana", "deny")).status == 200
    again = [await check(n) for n in range(60, 62)]
    assert again == ["approval-pending", "too-many-approvals"]
