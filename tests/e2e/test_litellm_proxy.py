"""A provider that litellm serves, through the whole proxy: any dialect, recorded and charged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.proxy import KEY, ProxyProcess, config

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = """
default:
  turns:
    - when: {last_user_contains: order, turn: 0}
      reasoning: I should look it up.
      tool_calls: [{name: crm_read, arguments: {id: 7}}]
      usage: {input: 100, output: 20, cached: 40, reasoning: 5}
    - {when: {turn: 1, tool_answered: crm_read}, text: It is on its way.}
    - {when: {last_user_contains: busy}, status: 429, retry_after: 3}
    - text: Hello there.
"""
SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}}}


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    upstream: Scripted
    chat: openai.AsyncOpenAI
    messages: anthropic.AsyncAnthropic


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        one = {
            "id": "ds",
            "provider": "deepseek",
            "model": "m",
            "base_url": upstream.base_url,
            "api_key": "sk-v",
        }
        told = config(upstream.base_url, models={"m": {"targets": [one], "retries": 0}})
        folder = tmp_path_factory.mktemp("proxy")
        async with (
            ProxyProcess(folder, told) as proxy,
            proxy.sdk() as chat,
            anthropic.AsyncAnthropic(base_url=proxy.origin, api_key=KEY, max_retries=0) as messages,
        ):
            yield House(proxy, upstream, chat, messages)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_loop_in_messages(house: House, stream: bool) -> None:
    said: list[Any] = [{"role": "user", "content": "where is my order"}]
    first = await _message(house, stream, said)
    thought, call = first.content
    assert (thought.type, thought.thinking) == ("thinking", "I should look it up.")
    assert (call.name, call.input, first.stop_reason) == ("crm_read", {"id": 7}, "tool_use")
    assert (first.usage.input_tokens, first.usage.cache_read_input_tokens) == (60, 40)
    said += [
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sent"}]},
    ]
    second = await _message(house, stream, said)
    assert second.content[-1].text == "It is on its way."
    view = max(house.proxy.views(), key=lambda found: found.started_us)
    assert (view.provider, view.dialect, view.upstream_dialect) == (
        "deepseek",
        "anthropic_messages",
        "openai_chat",
    )
    assert view.status is Status.OK
    assert house.upstream.seen[-1].headers["authorization"] == "Bearer sk-v"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_provider_reports_is_charged(house: House, stream: bool) -> None:
    raw = await house.chat.responses.with_raw_response.create(
        model="m", input="where is my order", stream=stream
    )
    events: Any = raw.parse()
    if stream:
        async for _ in events:
            pass
    view = house.proxy.view(raw.headers["x-call-id"])
    assert view.usage is not None
    assert (view.usage.input, view.usage.output, view.usage.cached, view.usage.reasoning) == (100, 20, 40, 5)
    assert view.cost_micro_usd == 100 + 2 * 20


async def test_a_refusal_is_a_failure_of_the_target(house: House) -> None:
    with pytest.raises(openai.InternalServerError) as told:
        await house.chat.chat.completions.create(model="m", messages=[{"role": "user", "content": "busy"}])
    assert (told.value.status_code, told.value.code) == (503, "upstream_unavailable")
    assert told.value.response.headers["retry-after"] == "3"


async def _message(house: House, stream: bool, said: list[Any]) -> Any:
    fields: dict[str, Any] = {
        "model": "m",
        "max_tokens": 4000,
        "messages": said,
        "tools": [{"name": "crm_read", "input_schema": SCHEMA}],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
    }
    if not stream:
        return await house.messages.messages.create(**fields)
    async with house.messages.messages.stream(**fields) as events:
        return await events.get_final_message()
