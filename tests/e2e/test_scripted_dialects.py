"""The scripted server's Messages, Responses and other endpoints, asked by the official SDKs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio

from llm_proxy.scripted.server import Scripted
from tests.e2e.scripted_clients import ASK
from tests.e2e.scripted_clients import client as client
from tests.e2e.scripted_clients import server as server


@pytest_asyncio.fixture
async def claude(server: Scripted) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=server.anthropic_url, api_key="k", max_retries=0) as sdk:
        yield sdk


RESULT: dict[str, Any] = {"type": "tool_result", "content": "gold"}


@pytest.mark.parametrize("stream", [False, True])
async def test_messages_with_thinking_and_a_tool(
    server: Scripted, claude: anthropic.AsyncAnthropic, stream: bool
) -> None:
    asked: list[Any] = [*ASK]
    settings: Any = {
        "model": "agent",
        "max_tokens": 4096,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    for _ in range(2):
        if stream:
            async with claude.messages.stream(messages=asked, **settings) as events:
                reply = await events.get_final_message()
        else:
            reply = await claude.messages.create(messages=asked, **settings)
        asked.append({"role": "assistant", "content": reply.content})
        results = [RESULT | {"tool_use_id": b.id} for b in reply.content if b.type == "tool_use"]
        asked.append({"role": "user", "content": results})
    assert [block.type for block in asked[1]["content"]] == ["thinking", "tool_use"]
    assert [block.text for block in asked[3]["content"]] == ["A gold customer."]
    last = server.seen[-1]
    assert (last.method, last.path, last.query) == ("POST", "/v1/messages", "")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("m400", anthropic.BadRequestError),
        ("m401", anthropic.AuthenticationError),
        ("m404", anthropic.NotFoundError),
        ("m429", anthropic.RateLimitError),
        ("m500", anthropic.InternalServerError),
        ("m529", anthropic.APIStatusError),
    ],
)
async def test_errors_are_anthropics_own(
    claude: anthropic.AsyncAnthropic, model: str, error: type[anthropic.APIStatusError], stream: bool
) -> None:
    with pytest.raises(error) as caught:
        await claude.messages.create(model=model, max_tokens=9, messages=ASK, stream=stream)
    assert caught.value.status_code == int(model[1:])
    assert caught.value.request_id is not None
    if model == "m529":
        assert caught.value.response.headers["retry-after"] == "3"
        assert "overloaded_error" in str(caught.value)


async def test_an_error_inside_a_stream_of_messages(claude: anthropic.AsyncAnthropic) -> None:
    said: list[str] = []
    with pytest.raises(anthropic.APIStatusError, match="busy"):
        async with claude.messages.stream(model="in-band", max_tokens=9, messages=ASK) as events:
            said += [text async for text in events.text_stream]
    async with claude.messages.stream(model="any", max_tokens=9, messages=ASK) as events:
        assert "".join([text async for text in events.text_stream]) == "Hello there."


async def test_counting_tokens_and_listing_models(claude: anthropic.AsyncAnthropic) -> None:
    reply = await claude.messages.create(model="tools", max_tokens=9, messages=ASK)
    count = await claude.messages.count_tokens(model="tools", messages=ASK)
    assert count.input_tokens == reply.usage.input_tokens
    assert [card.id async for card in claude.models.list()] == ["scripted"]


@pytest.mark.parametrize("stream", [False, True])
async def test_responses_with_a_tool(client: openai.AsyncOpenAI, stream: bool) -> None:
    asked: Any = "hi"
    previous: str | None = None
    said: list[str] = []
    for _ in range(2):
        settings: Any = {"model": "agent", "input": asked, "previous_response_id": previous}
        if stream:
            async with client.responses.stream(**settings) as events:
                reply = await events.get_final_response()
        else:
            reply = await client.responses.create(**settings)
        said.append(reply.output_text)
        previous = reply.id
        asked = [
            {"type": "function_call_output", "call_id": item.call_id, "output": "gold"}
            for item in reply.output
            if item.type == "function_call"
        ]
    assert said == ["", "A gold customer."]
    assert previous is not None
    fetched = await client.responses.retrieve(previous)
    assert fetched.output_text == "A gold customer."
    assert (await client.responses.cancel(previous)).id == previous
    await client.responses.delete(previous)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(previous)


async def test_an_error_inside_a_stream_of_responses(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.APIError, match="busy"):
        async for _ in await client.responses.create(model="in-band", input="hi", stream=True):
            pass


async def collect(response: aiohttp.ClientResponse, into: bytearray) -> None:
    async for piece in response.content.iter_any():
        into += piece


@pytest.mark.parametrize(
    ("path", "fields"), [("responses", {"input": "hi"}), ("messages", {"messages": ASK, "max_tokens": 9})]
)
async def test_faults_in_streams_of_other_dialects(
    server: Scripted, path: str, fields: dict[str, Any]
) -> None:
    async with aiohttp.ClientSession(headers={"anthropic-version": "2023-06-01"}) as session:
        url = f"{server.base_url}/{path}"
        async with session.post(url, json={"model": "cut", "stream": True, **fields}) as response:
            received = bytearray()
            with pytest.raises(aiohttp.ClientError):
                await collect(response, received)
            assert received.count(b"event: ") == 4
        async with session.post(url, json={"model": "truncate", "stream": True, **fields}) as response:
            text = await response.text()
            assert "event: " in text
            assert "stop" not in text.split("event: ")[-1]
            assert "response.completed" not in text


async def test_the_rest_of_openais_api(server: Scripted, client: openai.AsyncOpenAI) -> None:
    completion = await client.completions.create(model="any", prompt="hi")
    assert completion.choices[0].text == "Hello there."
    embedded = await client.embeddings.create(model="any", input=["a", "b"], dimensions=4)
    assert [len(one.embedding) for one in embedded.data] == [4, 4]
    upload = await client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    assert (await client.files.retrieve(upload.id)).id == upload.id
    assert (await client.files.content(upload.id)).content.startswith(b"{")
    assert (await client.files.delete(upload.id)).deleted
    heard = await client.audio.transcriptions.create(model="m", file=("a.wav", b"RIFF"))
    assert "recording" in heard.text
    assert (await client.audio.speech.create(model="m", voice="alloy", input="a")).content
    with pytest.raises(openai.RateLimitError):
        await client.moderations.create(model="m429", input="a")
    assert (await client.models.retrieve("m")).id == "m"
    assert server.seen[-1].model == "m429"
