"""What callers can make a proxy hold is bounded: bodies, headers, connections, and how long they wait."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn

from llm_proxy.http import guarded
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import KEY, ProxyProcess, ask, config, free_port, headers, until

SCRIPT = "default: {turns: [{text: Hello}]}"
MIB = 1 << 20


async def _posted(proxy: ProxyProcess, size: int) -> tuple[int, str, str | None]:
    body = io.BytesIO(json.dumps(ask("x" * size)).encode())
    async with aiohttp.ClientSession() as http, http.post(proxy.url, data=body, headers=headers()) as reply:
        code = "" if reply.status == 200 else (await reply.json())["error"]["code"]
        return reply.status, code, reply.headers.get("retry-after")


@asynccontextmanager
async def _connected(port: int) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _half_a_body(writer: asyncio.StreamWriter, size: int) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    writer.write(f"{head}content-length: {size + 9}\r\n\r\n".encode() + b"{" + b" " * (size - 1))
    await writer.drain()


async def test_what_one_proxy_holds_for_its_callers(tmp_path: Path) -> None:
    limits = {"drain_s": 1, "max_body_mb": 3, "max_bodies_mb": 4, "max_connections": 40}
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(upstream.base_url, server=limits)
        async with ProxyProcess(tmp_path, settings) as proxy:
            await _actions(proxy)
            await _bodies_together(proxy)
            await _endless_headers(proxy, b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-long: ")
            chunked = b"POST /health/live HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            await _endless_headers(proxy, chunked + b"1\r\n{\r\n0\r\nx-trailer: ")
            await _endless_headers(proxy, chunked + b"1;x-extension=")
            await _too_many_connections(proxy)
            assert await _posted(proxy, 3) == (200, "", None)


async def _actions(proxy: ProxyProcess) -> None:
    """Their bodies take room and leave it, or the room would grow with each."""
    async with aiohttp.ClientSession() as http:
        for _ in range(20):
            url = f"{proxy.origin}/v1/actions/check"
            async with http.post(url, data=b"[" + b" " * 60_000, headers=headers()) as reply:
                assert reply.status == 400


async def _bodies_together(proxy: ProxyProcess) -> None:
    """Two bodies that never end take nearly all of the room; it is there again as soon as they are gone."""
    for pause in (0.1, 0.5, 2.0, 5.0):
        async with _connected(proxy.port) as (_, one), _connected(proxy.port) as (_, other):
            await _half_a_body(one, 2 * MIB)
            await _half_a_body(other, 3 * MIB // 2)
            await asyncio.sleep(pause)  # what came before both are read would take the room of the second
            full = await _posted(proxy, MIB) == (429, "rate_limited", "1")
            if full:
                assert (await _posted(proxy, 1_000))[0] == 200, "a small call fits"
                break
    else:
        raise AssertionError("two large bodies leave room for a third")

    async def is_free() -> bool:
        return (await _posted(proxy, 2 * MIB))[0] == 200

    await until(is_free, "there is room again")


async def _endless_headers(proxy: ProxyProcess, begin: bytes) -> None:
    """Of a request, behind its body, or beside a piece of it."""
    async with _connected(proxy.port) as (reader, writer):
        writer.write(begin)
        await asyncio.sleep(0.1)
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                writer.write(b"y" * 8_192)
                await writer.drain()
        got = b""
        with contextlib.suppress(ConnectionError):  # what was on its way still makes its system cut it
            async with asyncio.timeout(10):
                got = await reader.read()
        assert b"HTTP/1.1 431 " in got or not got or begin.startswith(b"POST")
        assert writer.is_closing() or reader.at_eof() or reader.exception() is not None


async def _too_many_connections(proxy: ProxyProcess) -> None:
    async with contextlib.AsyncExitStack() as stack:
        readers = [(await stack.enter_async_context(_connected(proxy.port)))[0] for _ in range(60)]

        def closed() -> int:
            return sum(reader.at_eof() or reader.exception() is not None for reader in readers)

        await until(lambda: closed() >= 20, "those past the limit are closed")
        assert closed() == 20

    async def answers() -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            return (await _posted(proxy, 3))[0] == 200
        return False

    await until(answers, "others are served again")


@asynccontextmanager
async def _impatient(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[int]:
    """The port of a server with the product's protocol, which waits for tenths of seconds."""
    monkeypatch.setattr(guarded, "HEAD_S", 0.3)
    monkeypatch.setattr(guarded, "BODY_IDLE_S", 0.3)
    monkeypatch.setattr(guarded, "_EVERY_S", 0.05)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(_slowly, port=port, http=guarded.GuardedProtocol, log_config=None, lifespan="off")
    )
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started, "it serves")
        yield port
    finally:
        server.should_exit = True
        await task


async def _slowly(_scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, and answers after longer than the protocol waits."""
    while (message := await receive()).get("more_body"):
        continue
    if message["type"] == "http.disconnect":
        return
    await asyncio.sleep(0.7)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", False),
        (b"POST / HTTP/1.1\r\nhost: x\r\nx-half: ", False),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf", False),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nhalf", True),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nhalfPOST / HTTP", True),
    ],
    ids=["nothing", "half a head", "half a body", "whole", "whole, and the beginning of another"],
)
async def test_a_connection_is_not_kept_for_nothing(
    monkeypatch: pytest.MonkeyPatch, sent: bytes, answered: bool
) -> None:
    async with _impatient(monkeypatch) as port, _connected(port) as (reader, writer):
        writer.write(sent)
        async with asyncio.timeout(5):
            if not answered:
                assert await reader.read() == b"", "it is closed"
                return
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


async def test_a_body_that_keeps_coming_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _impatient(monkeypatch) as port, _connected(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.1)
            writer.write(b"x")
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
