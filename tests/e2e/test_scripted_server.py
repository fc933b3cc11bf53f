"""The scripted server on a real port, asked by the official SDKs and by bare sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import httpx
import openai
import pytest
import pytest_asyncio

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running

SCRIPT = """
default:
  turns:
    - when: {model: tools}
      reasoning: I should look.
      tool_calls: [{name: crm_read, arguments: {id: 7}}, {name: kb_search, arguments: {query: tank}}]
    - {when: {model: two}, text: heads, choices: [{text: tails}]}
    - {when: {model: m400}, status: 400, error: {message: no such field, type: invalid_request_error}}
    - {when: {model: m401}, status: 401}
    - {when: {model: m404}, status: 404}
    - {when: {model: m409}, status: 409}
    - {when: {model: m422}, status: 422}
    - {when: {model: m429}, status: 429, retry_after: 7}
    - {when: {model: m500}, status: 500}
    - {when: {model: flaky}, status: 503, fail_times: 2, headers: {retry-after-ms: "1"}}
    - {when: {model: cut}, text: one two three four, cut_after: 3}
    - {when: {model: cut0}, text: one, cut_after: 0}
    - {when: {model: stall}, text: one two three four, stall_after: 3}
    - {when: {model: stall0}, text: one, stall_after: 0}
    - {when: {model: truncate}, text: one two three four, truncate: true}
    - {when: {model: malformed}, text: one two, malformed_after: 2}
    - {when: {model: in-band}, text: one two, error: {message: busy, type: overloaded_error}}
    - {when: {model: m529}, status: 529, retry_after: 3}
    - when: {model: agent, turn: 0}
      reasoning: I should look.
      tool_calls: [{name: crm_read, arguments: {id: 7}}]
    - {when: {model: agent, tool_answered: crm_read, last_tool_contains: gold}, text: A gold customer.}
    - {text: Hello there., usage: {input: 11, output: 3}}
"""
ASK: list[Any] = [{"role": "user", "content": "hi"}]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Scripted]:
    async with running(parse_script(SCRIPT)) as scripted:
        yield scripted


@pytest_asyncio.fixture
async def client(server: Scripted) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as sdk:
        yield sdk


async def streamed(client: openai.AsyncOpenAI, model: str, said: list[str]) -> None:
    """Collects the text of a streamed reply, up to where it breaks."""
    stream = await client.chat.completions.create(model=model, messages=ASK, stream=True)
    async for chunk in stream:
        said += [choice.delta.content or "" for choice in chunk.choices]


async def test_whole(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model="any", messages=ASK)
    assert reply.choices[0].message.content == "Hello there."
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (11, 3)


@pytest.mark.parametrize("usage", [False, True])
async def test_streamed(client: openai.AsyncOpenAI, usage: bool) -> None:
    stream = await client.chat.completions.create(
        model="any", messages=ASK, stream=True, stream_options={"include_usage": usage}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello there."
    reported = [c.usage.total_tokens for c in chunks if c.usage]
    assert reported == ([14] if usage else [])


async def test_the_sync_client(server: Scripted) -> None:
    def ask() -> tuple[str | None, str]:
        with openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0) as sdk:
            whole = sdk.chat.completions.create(model="any", messages=ASK)
            with sdk.chat.completions.create(model="any", messages=ASK, stream=True) as stream:
                text = "".join(c.choices[0].delta.content or "" for c in stream)
            return whole.choices[0].message.content, text

    assert await asyncio.to_thread(ask) == ("Hello there.", "Hello there.")


@pytest.mark.parametrize("stream", [False, True])
async def test_tools(client: openai.AsyncOpenAI, stream: bool) -> None:
    if stream:
        async with client.chat.completions.stream(model="tools", messages=ASK) as events:
            reply = await events.get_final_completion()
    else:
        reply = await client.chat.completions.create(model="tools", messages=ASK)
    [choice] = reply.choices
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls or []
    assert [(c.function.name, json.loads(c.function.arguments)) for c in calls if c.type == "function"] == [
        ("crm_read", {"id": 7}),
        ("kb_search", {"query": "tank"}),
    ]
    assert len({c.id for c in calls}) == 2


async def test_two_choices(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model="two", messages=ASK, n=2)
    assert [c.message.content for c in reply.choices] == ["heads", "tails"]
    said = {0: "", 1: ""}
    async for chunk in await client.chat.completions.create(model="two", messages=ASK, n=2, stream=True):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
    assert said == {0: "heads", 1: "tails"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("m400", openai.BadRequestError),
        ("m401", openai.AuthenticationError),
        ("m404", openai.NotFoundError),
        ("m409", openai.ConflictError),
        ("m422", openai.UnprocessableEntityError),
        ("m429", openai.RateLimitError),
        ("m500", openai.InternalServerError),
    ],
)
async def test_errors_are_the_sdks_own(
    client: openai.AsyncOpenAI, model: str, error: type[openai.APIStatusError], stream: bool
) -> None:
    with pytest.raises(error) as caught:
        await client.chat.completions.create(model=model, messages=ASK, stream=stream)
    assert caught.value.status_code == int(model[1:])
    if model == "m400":
        assert caught.value.body == {
            "message": "no such field",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    if model == "m429":
        assert caught.value.response.headers["retry-after"] == "7"


async def test_the_sdks_own_retries_get_through(server: Scripted, client: openai.AsyncOpenAI) -> None:
    reply = await client.with_options(max_retries=2).chat.completions.create(model="flaky", messages=ASK)
    assert reply.choices[0].message.content == "Hello there."
    assert server.stats.requests == {"flaky": 3}


async def test_a_cut_stream_breaks_after_what_was_sent(client: openai.AsyncOpenAI) -> None:
    said: list[str] = []
    with pytest.raises(httpx.NetworkError):
        await streamed(client, "cut", said)
    assert "".join(said) == "one two"


@pytest.mark.parametrize(("model", "stream"), [("cut", False), ("cut0", False), ("cut0", True)])
async def test_a_cut_reply_is_a_connection_error(
    client: openai.AsyncOpenAI, model: str, stream: bool
) -> None:
    with pytest.raises(openai.APIConnectionError):
        await client.chat.completions.create(model=model, messages=ASK, stream=stream)


async def read_all(reader: asyncio.StreamReader, into: bytearray) -> None:
    while True:
        into += await reader.readexactly(1)


async def test_a_cut_is_a_reset_in_the_middle_of_a_chunk(server: Scripted) -> None:
    body = json.dumps({"model": "cut", "messages": ASK, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection(*server.origin.removeprefix("http://").split(":"))
    writer.write(head.encode() + body)
    received = bytearray()
    with pytest.raises(ConnectionResetError):
        await read_all(reader, received)
    writer.transport.abort()
    *_, last_size, part = bytes(received).split(b"\r\n")
    assert received.count(b"data: ") == 4
    assert part.startswith(b"data: ")
    assert len(part) < int(last_size, 16)


@pytest.mark.parametrize("model", ["stall", "stall0"])
async def test_a_stall_is_silence_until_the_client_leaves(
    server: Scripted, client: openai.AsyncOpenAI, model: str
) -> None:
    said: list[str] = []
    impatient = client.with_options(timeout=0.15)
    with pytest.raises((openai.APITimeoutError, httpx.ReadTimeout)):
        await streamed(impatient, model, said)
    assert "".join(said) == ("one two" if model == "stall" else "")
    async with asyncio.timeout(5):
        await server.until(lambda stats: stats.client_gone == 1 and stats.in_flight == 0)


async def test_a_truncated_body_is_shorter_than_it_says(server: Scripted) -> None:
    async with aiohttp.ClientSession() as session:
        url = server.base_url + "/chat/completions"
        async with session.post(url, json={"model": "truncate", "messages": ASK}) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


async def test_a_truncated_stream_ends_cleanly_without_its_marker(server: Scripted) -> None:
    async with aiohttp.ClientSession() as session:
        url = server.base_url + "/chat/completions"
        asked = {"model": "truncate", "messages": ASK, "stream": True}
        async with session.post(url, json=asked) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            text = await response.text()
    assert "one" in text
    assert "[DONE]" not in text
    assert '"finish_reason":"stop"' not in text


async def test_malformed(client: openai.AsyncOpenAI) -> None:
    said: list[str] = []
    with pytest.raises(json.JSONDecodeError):
        await streamed(client, "malformed", said)
    assert "".join(said) == "one"
    with pytest.raises(json.JSONDecodeError):
        await client.chat.completions.create(model="malformed", messages=ASK)


async def test_an_error_inside_the_stream(client: openai.AsyncOpenAI) -> None:
    said: list[str] = []
    with pytest.raises(openai.APIError, match="busy"):
        await streamed(client, "in-band", said)
    assert "".join(said) == "one two"


async def test_what_arrived_can_be_looked_at(server: Scripted, client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(model="any", messages=ASK, user="u1")
    await client.chat.completions.create(model="tools", messages=ASK)
    async with aiohttp.ClientSession(server.origin) as session:
        bad = await session.post("/v1/chat/completions", data=b"{oops")
        assert (bad.status, (await bad.json())["error"]["code"]) == (400, "invalid_request")
        stats = await (await session.get("/stats")).json()
        assert stats["requests"] == {"any": 1, "tools": 1, "": 1}
        assert (stats["total"], stats["in_flight"]) == (3, 0)
        assert stats["bytes_in"] > 0
        assert stats["bytes_out"] > 0
        seen = (await (await session.get("/requests")).json())["requests"]
        assert [s["model"] for s in seen] == ["any", "tools", ""]
        assert seen[0]["body"]["user"] == "u1"
        assert seen[0]["headers"]["authorization"] == "Bearer k"
        assert seen[2]["body"] == "{oops"
        last = (await (await session.get("/requests", params={"limit": "1"})).json())["requests"]
        assert last == seen[2:]
        await session.post("/reset")
        assert (await (await session.get("/stats")).json())["total"] == 0
    assert [m.id async for m in client.models.list()] == ["scripted"]


async def test_a_large_request_arrives(server: Scripted, client: openai.AsyncOpenAI) -> None:
    large = "x" * 3_000_000
    await client.chat.completions.create(model="any", messages=[{"role": "user", "content": large}])
    assert server.stats.bytes_in > 3_000_000


async def test_from_the_command_line_until_sigterm() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llm_proxy.scripted", stdout=asyncio.subprocess.PIPE, env={**os.environ}
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = (await process.stdout.readline()).decode()
            base_url = line.removeprefix("base_url ").strip()
            async with openai.AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0) as sdk:
                reply = await sdk.chat.completions.create(model="any", messages=ASK)
            assert reply.choices[0].finish_reason == "tool_calls"
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_command_line_names_what_it_cannot_use() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "llm_proxy.scripted", "--script", "nowhere.yaml"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"nowhere.yaml: can't be read" in errors


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


async def test_what_arrived_says_where(server: Scripted) -> None:
    async with aiohttp.ClientSession(server.origin) as session:
        await session.get("/v1/batches", params={"limit": "2"})
        [seen] = (await (await session.get("/requests")).json())["requests"]
        assert (seen["method"], seen["path"], seen["query"]) == ("GET", "/v1/batches", "limit=2")
        unknown = await session.post("/v1/messages", json={"model": "m", "messages": ASK})
        assert (unknown.status, (await unknown.json())["type"]) == (400, "error")
        missing = await session.post("/v1/responses/resp_none/other")
        assert missing.status == 404
