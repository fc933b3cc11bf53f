"""A seal that nobody here remembers and the provider can't open: the request goes again without any, once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio

from llm_proxy.outgoing import FOREIGN_SEAL
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.proxy import KEY, ProxyProcess, config, target

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = """
default:
  turns:
    - {when: {turn: 1}, reasoning: Now I know., text: It is on its way.}
    - {text: Hello there.}
"""
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"id": {"type": "integer"}}}
FOREIGN = "Zm9yZWlnbiBzZWFs"


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    upstream: Scripted
    chat: openai.AsyncOpenAI
    claude: anthropic.AsyncAnthropic


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as up:
        claude = target("claude", up.origin, "claude-sonnet-4-5") | {"provider": "anthropic"}
        responses = target("responses", up.base_url) | {"dialects": ["openai_responses"]}
        models = {"claude": {"targets": [claude], "retries": 0}, "r": {"targets": [responses], "retries": 0}}
        settings = config(up.base_url, models=models, prices={}, unpriced="free")
        async with (
            ProxyProcess(tmp_path_factory.mktemp("unsealed"), settings) as proxy,
            proxy.sdk() as chat,
            anthropic.AsyncAnthropic(base_url=proxy.origin, api_key=KEY, max_retries=0) as claude_sdk,
        ):
            yield House(proxy, up, chat, claude_sdk)


async def test_messages(house: House) -> None:
    asked: list[Any] = [
        {"role": "user", "content": "where is it"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I look.", "signature": FOREIGN},
                {"type": "tool_use", "id": "toolu_1", "name": "order", "input": {"id": 7}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "sent"}]},
    ]
    raw = await house.claude.messages.with_raw_response.create(
        model="claude",
        max_tokens=4000,
        thinking={"type": "enabled", "budget_tokens": 2000},
        messages=asked,
        tools=[{"name": "order", "input_schema": SCHEMA}],
    )
    _expect_a_second_try(house, raw.headers)
    assert raw.headers["x-dropped-fields"] == f"{FOREIGN_SEAL}, thinking"


async def test_responses(house: House) -> None:
    asked: list[Any] = [
        {"role": "user", "content": "where is it"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": FOREIGN},
        {"type": "function_call", "call_id": "call_1", "name": "order", "arguments": '{"id":7}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "sent"},
    ]
    raw = await house.chat.responses.with_raw_response.create(model="r", input=asked, store=False)
    _expect_a_second_try(house, raw.headers)
    assert raw.headers["x-dropped-fields"] == FOREIGN_SEAL


async def test_another_400_is_the_callers_at_once(house: House) -> None:
    seen = house.upstream.stats.total
    with pytest.raises(anthropic.BadRequestError):
        await house.claude.messages.create(
            model="claude", max_tokens=100, messages=[{"role": "assistant", "content": "first"}]
        )
    assert house.upstream.stats.total == seen + 1


def _expect_a_second_try(house: House, headers: Any) -> None:
    refused, taken = list(house.upstream.seen)[-2:]
    assert FOREIGN in refused.body.decode()
    assert FOREIGN not in taken.body.decode()
    view = house.proxy.view(headers["x-call-id"])
    assert [attempt.status for attempt in view.attempts] == [400, 200]
    assert FOREIGN_SEAL in view.dropped
    assert view.request is not None
    assert FOREIGN in view.request.decode()
    assert view.sent is not None
    assert json.loads(view.sent) == json.loads(taken.body)
