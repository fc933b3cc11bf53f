"""Replies written as OpenAI's Responses, read by OpenAI's own client."""

from __future__ import annotations

from typing import Any

import httpx
from openai import AsyncOpenAI, OpenAI

from llm_proxy.chat.events import (
    ANTHROPIC_FORMAT,
    CallDelta,
    Ended,
    Event,
    Finished,
    Reasoning,
    ReasoningKind,
    Text,
)
from llm_proxy.wire.openai_responses.translation import TRANSLATION
from tests.unit.responses_rendering import START, USAGE, about

EVENTS: list[Event] = [
    START,
    Reasoning(0, "Hm.", ReasoningKind.RAW, signature="Eq", format=ANTHROPIC_FORMAT),
    Text(0, "Zürich — "),
    Text(0, "\u2028ok"),
    CallDelta(0, 0, "c1", "get_weather", '{"city":"Bern"}'),
    Finished(0, "tool_call"),
    USAGE,
    Ended(),
]


def _streamed(request: httpx.Request) -> httpx.Response:
    renderer = TRANSLATION.renderer(about())
    raw = renderer.render(EVENTS) + renderer.close()
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=raw, request=request)


def _whole(request: httpx.Request) -> httpx.Response:
    raw = TRANSLATION.render_body(EVENTS, about())
    return httpx.Response(200, headers={"content-type": "application/json"}, content=raw, request=request)


def _check(response: Any) -> None:
    assert response.output_text == "Zürich — \u2028ok"
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    assert response.output[2].arguments == '{"city":"Bern"}'
    assert response.usage.output_tokens_details.reasoning_tokens == 4


def test_openais_client_reads_a_whole_reply() -> None:
    with OpenAI(api_key="k", http_client=httpx.Client(transport=httpx.MockTransport(_whole))) as client:
        _check(client.responses.create(model="smart", input="Hi"))


def test_openais_client_reads_a_stream() -> None:
    with (
        OpenAI(api_key="k", http_client=httpx.Client(transport=httpx.MockTransport(_streamed))) as client,
        client.responses.stream(model="smart", input="Hi") as found,
    ):
        deltas = [event.delta for event in found if event.type == "response.output_text.delta"]
        assert deltas == ["Zürich — ", "\u2028ok"]
        _check(found.get_final_response())


async def test_openais_asynchronous_client_reads_a_stream() -> None:
    http = httpx.AsyncClient(transport=httpx.MockTransport(_streamed))
    async with AsyncOpenAI(api_key="k", http_client=http) as client:
        events = [event async for event in await client.responses.create(model="m", input="Hi", stream=True)]
    last = events[-1]
    assert last.type == "response.completed"
    _check(last.response)
