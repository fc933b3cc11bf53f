"""What is put back into a history is held for before it goes out, through a real proxy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.approvals_house import House, approvals_house
from tests.e2e.tool_policy_house import Call, body_of
from tests.proxy import ask, headers, target
from tests.raw_upstream import Answer, RawUpstream, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

BAD = Call("call_bad", "wipe", json.dumps({"x": "A " * 50_000}))
OK = Call("call_ok", "look", "{}")
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("refund", "wipe", "look")
]
POLICY: dict[str, Any] = {
    "policy": {"id": "review", "version": 1},
    "on_deny": "error",
    "declare": "pass",
    "input": {"max_args_bytes": 200_000},
    "tools": {
        "refund": {"effect": "write", "tier": "human-approval"},
        "look": {"effect": "read", "tier": "autonomous", "result": {"trust": "internal"}},
        "wipe": {"effect": "irreversible", "tier": "prohibited"},
    },
    "redact": [{"id": "card", "in": ["tool_args"], "detect": "card_number", "with": "mask"}],
    "approvals": {"default": {"approvers": ["group:leads"], "expires_s": 60, "hold_s": 0}},
}


@dataclass
class Stage:
    house: House
    upstream: RawUpstream
    answer: list[Answer]

    async def send(self, body: dict[str, Any], run: str) -> tuple[int, Any]:
        told = headers(x_run_id=run)
        async with (
            aiohttp.ClientSession() as http,
            http.post(self.house.proxy.url, json=body, headers=told) as reply,
        ):
            return reply.status, await reply.json(content_type=None)

    async def model(self, run: str, *calls: Call, **more: Any) -> tuple[int, Any]:
        self.answer[:] = [whole(body_of(list(calls)))]
        return await self.send(ask("do it", tools=TOOLS, **more), run)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["error", "replace"])
async def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    answer: list[Answer] = []
    async with raw_upstream(lambda _body: answer[0]) as upstream:
        models = {"m": {"targets": [target("up", upstream.base_url)], "retries": 0}}
        limits = [{"id": "words", "agent": "bot", "window": "run", "tokens": 150_000}]
        folder = tmp_path_factory.mktemp("review")
        policy = POLICY | {"on_deny": request.param}
        async with approvals_house(folder, policy=policy, models=models, budgets=limits) as house:
            yield Stage(house, upstream, answer)


async def test_what_is_put_back_into_a_history_is_held_for(stage: Stage) -> None:
    status, first = await stage.model("amplified", OK, BAD, max_tokens=100)
    if status != 200:
        pytest.skip("nothing was released")
    turn = first["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": OK.id, "content": "ok"}
    messages = [{"role": "user", "content": "do it"}, *[turn, result] * 40]
    stage.answer[:] = [whole(body_of([], content="fine"))]
    body = {"model": "m", "messages": messages, "max_tokens": 100, "tools": TOOLS}
    status, _ = await stage.send(body, "amplified")
    sent, went = len(json.dumps(body)), len(stage.upstream.bodies[-1])
    assert went < 150_000 * 4, f"{sent} bytes under a limit of 150,000 tokens went out as {went}; {status}"
