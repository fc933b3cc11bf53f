"""Responses that their provider keeps: fetched, judged and charged once, and gone on from after a denial."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
import pytest_asyncio

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config, target

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = """
default:
  turns:
    - when: {last_user_contains: both, turn: 0}
      tool_calls:
        - {name: crm_read, arguments: {id: 7}}
        - {name: crm_drop, arguments: {id: 7, secret: swordfish}}
    - {when: {turn: 1}, text: I could only read it.}
    - {when: {last_user_contains: slowly}, tool_calls: [{name: crm_drop, arguments: {secret: swordfish}}]}
    - text: Hello there.
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "p", "version": 1, "owner": "sec@example.com"},
    "posture": {"default": "deny", "fallback": "deny"},
    "on_deny": "replace",
    "tools": {
        "crm_read": {
            "owner": "crm",
            "risk": "low",
            "effect": "read",
            "tier": "autonomous",
            "args": {"type": "object", "properties": {"id": {"type": "integer"}}},
        }
    },
}
TOOLS: list[Any] = [
    {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": False}
    for name in ("crm_read", "crm_drop")
]


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    upstream: Scripted
    sdk: openai.AsyncOpenAI


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        told = config(
            upstream.base_url,
            models={"m": {"targets": [target("up", upstream.base_url) | {"dialects": ["openai_responses"]}]}},
            agents={
                "bot": {"keys": [KEY], "models": ["*"]},
                "other": {"keys": [OTHER_KEY], "models": ["*"]},
            },
            budgets=[{"id": "all", "window": "day", "requests": 1000, "tokens": 10_000_000}],
        )
        folder = tmp_path_factory.mktemp("proxy")
        async with ProxyProcess(folder, told, policy=POLICY) as proxy, proxy.sdk() as sdk:
            yield House(proxy, upstream, sdk)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_denied_call_is_answered_before_the_conversation_goes_on(house: House, stream: bool) -> None:
    first = await _create(house, stream, input="do both", tools=TOOLS)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["crm_read"]
    answer = {"type": "function_call_output", "call_id": calls[0].call_id, "output": "it is there"}
    second = await _create(house, stream, input=[answer], tools=TOOLS, previous_response_id=first.id)
    assert second.output_text == "I could only read it."
    sent = json.loads(house.upstream.seen[-1].body)
    denied, given = sent["input"]
    assert (denied["type"], given["output"]) == ("function_call_output", "it is there")
    assert "denied" in denied["output"]
    assert "swordfish" not in json.dumps(sent)


async def test_text_goes_on_behind_the_answer_to_a_denied_call(house: House) -> None:
    first = await _create(house, False, input="do both", tools=TOOLS)
    read = next(item for item in first.output if item.type == "function_call")
    with pytest.raises(openai.BadRequestError, match=read.call_id):
        # Its own call is the agent's to answer: the provider says so, and the proxy adds nothing for it.
        await _create(house, False, input="go on", previous_response_id=first.id)
    sent = json.loads(house.upstream.seen[-1].body)["input"]
    assert [item.get("type", item.get("role")) for item in sent] == ["function_call_output", "user"]


async def test_what_was_made_in_the_background_is_judged_and_charged_when_it_is_fetched(house: House) -> None:
    queued = await house.sdk.responses.create(model="m", input="slowly", tools=TOOLS, background=True)
    assert queued.status == "queued"
    before = house.proxy.used("all", "tokens")
    fetched = await house.sdk.responses.with_raw_response.retrieve(queued.id)
    assert b"swordfish" not in fetched.content
    assert "denied" in fetched.parse().output_text
    view = house.proxy.view(fetched.headers["x-call-id"])
    assert [(d.tool, d.decision) for d in view.decisions] == [("crm_drop", "deny")]
    assert view.usage is not None
    charged = house.proxy.used("all", "tokens")
    assert charged - before == view.usage.total > 0
    again = await house.sdk.responses.with_raw_response.retrieve(queued.id)
    assert b"swordfish" not in again.content
    assert house.proxy.used("all", "tokens") == charged


async def test_another_agents_response_is_not_there(house: House) -> None:
    mine = await _create(house, False, input="hello")
    seen = house.upstream.stats.total
    async with house.proxy.sdk(OTHER_KEY) as other:
        with pytest.raises(openai.BadRequestError, match="none that you were given"):
            await other.responses.create(model="m", input="go on", previous_response_id=mine.id)
        with pytest.raises(openai.BadRequestError, match="none that you were given"):
            await other.responses.retrieve(mine.id)
    assert house.upstream.stats.total == seen
    assert (await house.sdk.responses.retrieve(mine.id)).output_text == "Hello there."


async def test_what_was_not_to_be_stored_is_not_gone_on_from(house: House) -> None:
    loose = await _create(house, False, input="hello", store=False)
    with pytest.raises(openai.BadRequestError, match="none that you were given"):
        await _create(house, False, input="go on", previous_response_id=loose.id)


async def _create(house: House, stream: bool, **fields: Any) -> Any:
    if not stream:
        return await house.sdk.responses.create(model="m", **fields)
    async with house.sdk.responses.stream(model="m", **fields) as events:
        return await events.get_final_response()
