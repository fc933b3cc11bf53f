"""The scripted server on a real port, asked by OpenAI's SDK and by bare sockets.

Chat completions, their faults, what the server shows of what arrived, and its command line. The other
dialects and endpoints are in `test_scripted_dialects.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import aiohttp
import httpx
import openai
import pytest

from llm_proxy.scripted.server import Scripted
from tests.e2e.scripted_clients import ASK
from tests.e2e.scripted_clients import client as client
from tests.e2e.scripted_clients import server as server


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


async def test_what_arrived_says_where(server: Scripted) -> None:
    async with aiohttp.ClientSession(server.origin) as session:
        await session.get("/v1/batches", params={"limit": "2"})
        [seen] = (await (await session.get("/requests")).json())["requests"]
        assert (seen["method"], seen["path"], seen["query"]) == ("GET", "/v1/batches", "limit=2")
        unknown = await session.post("/v1/messages", json={"model": "m", "messages": ASK})
        assert (unknown.status, (await unknown.json())["type"]) == (400, "error")
        missing = await session.post("/v1/responses/resp_none/other")
        assert missing.status == 404
