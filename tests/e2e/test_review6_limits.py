"""Review of issue 6, through a real proxy: unused grants, endless questions, spend that nothing holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.receipts.verify import action_digest
from tests.e2e.approvals_house import House, approvals_house
from tests.e2e.tool_policy_house import Call, body_of
from tests.proxy import KEY, ask, headers, target
from tests.raw_upstream import Answer, RawUpstream, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

REFUND = Call("call_refund", "refund", '{"order": "4711"}')
BAD = Call("call_bad", "wipe", json.dumps({"x": "A " * 50_000}))
OK = Call("call_ok", "look", "{}")
CARD = "4111 1111 1111 1111"
MAIL = Call("call_mail", "look", json.dumps({"text": CARD}))
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


async def test_a_reply_that_is_refused_as_a_whole_uses_up_no_grant(stage: Stage) -> None:
    await stage.model("burnt", REFUND, max_tokens=100)
    [line] = (await stage.house.send("GET", "/approvals?run=burnt", "dana")).body
    assert (await stage.house.decide(line["id"], "dana")).status == 200
    status, _ = await stage.model("burnt", REFUND, BAD._replace(arguments="{}"), max_tokens=100)
    shown = await stage.house.show(line["id"])
    assert (status, shown["used"]) in [(403, 0), (200, 1)]


async def test_a_call_of_a_reply_that_is_refused_as_a_whole_has_no_receipt(stage: Stage) -> None:
    status, _ = await stage.model("unheard", OK, BAD._replace(arguments="{}"), max_tokens=100)
    url = f"{stage.house.proxy.origin}/v1/runs/unheard/receipts/{OK.id}"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers()) as reply:
        got = await reply.json()
    assert (status == 403) == (reply.status != 200), (status, reply.status, got)


async def test_an_agent_cannot_open_questions_without_end(stage: Stage) -> None:
    async with aiohttp.ClientSession() as http:

        async def check(n: int) -> Any:
            body = {"tool": "refund", "arguments": {"order": str(n)}}
            url = f"{stage.house.proxy.origin}/v1/actions/check"
            async with http.post(url, json=body, headers=headers(KEY, x_run_id="flood")) as reply:
                return (await reply.json())["decision"]

        for start in range(0, 600, 50):
            await asyncio.gather(*(check(n) for n in range(start, start + 50)))
    found: list[Any] = []
    before = ""
    while page := (await stage.house.send("GET", f"/approvals?run=flood&limit=200{before}", "dana")).body:
        found += page
        before = f"&before={page[-1]['id']}"
    assert len(found) < 200, f"{len(found)} approvals wait for people"


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


async def test_arguments_are_redacted_whatever_the_request_declares(stage: Stage) -> None:
    await stage.model("bare", OK, max_tokens=100)
    stage.answer[:] = [whole(body_of([MAIL]))]
    call = {"id": OK.id, "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": OK.id, "content": "ok"},
    ]
    status, got = await stage.send({"model": "m", "messages": messages, "max_tokens": 100}, "bare")
    assert status == 200, got
    assert CARD not in json.dumps(got)


async def test_a_receipt_fits_the_arguments_that_the_agent_got(stage: Stage) -> None:
    status, got = await stage.model("fits", MAIL, max_tokens=100)
    assert status == 200
    arguments = got["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert CARD not in arguments
    url = f"{stage.house.proxy.origin}/v1/runs/fits/receipts/{MAIL.id}"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers()) as reply:
        receipt = await reply.json()
    assert receipt["digest"] != action_digest("look", MAIL.arguments), (
        "the redacted value can be guessed by it"
    )
    assert receipt["digest"] == action_digest("look", arguments)
