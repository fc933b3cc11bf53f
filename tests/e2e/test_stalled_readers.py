"""An answer of any length whose reader takes nothing ends, and lets go of what it held."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import anyio
import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from uvicorn.server import ServerState

from llm_proxy.admin.from_thread import from_thread
from llm_proxy.admin.streamed import Stalled, Streamed
from llm_proxy.http.guarded import GuardedProtocol
from tests.proxy import until

STALLED_S = 1.0
PATIENT_S = 10.0
"""For who reads: so long a busy machine may take."""
BUFFER = 32 << 10
ENOUGH = 5_000
"""Lines that no socket's buffers hold."""
_SCOPE = {"type": "http", "path": "/", "asgi": {"spec_version": "2.4"}}
_LINE = b'{"record":"%b"}\n' % (b"x" * 1_000)


class Export:
    """An app that tells so many lines: out of one thread, to one reader at a time, or in pieces."""

    def __init__(self, *, pieces: bool = False, stalled_s: float = STALLED_S) -> None:
        self.pieces = pieces
        self.stalled_s = stalled_s
        self.slot = asyncio.Lock()
        self.made = 0
        self.ended = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        made = self._lines() if self.pieces else self._stream()
        answer = Streamed(made, {}, "application/x-ndjson", self.stalled_s)
        await answer(scope, receive, send)

    async def _stream(self) -> AsyncGenerator[bytes]:
        async with self.slot, contextlib.aclosing(from_thread(self._lines)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _lines(self) -> Generator[bytes]:
        try:
            for _ in range(ENOUGH):
                self.made += 1
                yield _LINE
        finally:
            self.ended += 1


@contextlib.asynccontextmanager
async def _served(app: Export) -> AsyncGenerator[int]:
    config = uvicorn.Config(app, http=GuardedProtocol, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        listener.bind(("127.0.0.1", 0))
        server = await asyncio.get_running_loop().create_server(
            lambda: GuardedProtocol(config=config, server_state=state, app_state={}), sock=listener
        )
        async with server:
            yield listener.getsockname()[1]


@contextlib.asynccontextmanager
async def _asked(port: int) -> AsyncGenerator[asyncio.StreamReader]:
    """A reader of little at a time."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=BUFFER)
        writer.write(b"GET /admin/audit/export HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        try:
            yield reader
        finally:
            writer.transport.abort()


async def test_a_stalled_reader_is_let_go_of_and_the_next_one_served(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uvicorn", "uvicorn.error"):  # which a server that ran before may have set otherwise
        caplog.set_level(logging.ERROR, name)
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    app = Export()
    async with _served(app) as port, _asked(port) as reader:
        await until(app.slot.locked, "the answer has begun")
        await until(lambda: app.ended == 1, "what the reader doesn't take is made no more")
        assert app.made < ENOUGH, "nothing was held back"
        await until(lambda: not app.slot.locked(), "the slot is free")
        app.stalled_s = PATIENT_S
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/") as answer:
            assert len(await answer.read()) == ENOUGH * len(_LINE)
        assert await _rest(reader) < ENOUGH * len(_LINE), "an answer that broke off looks whole"
    errors = [record.exc_info for record in caplog.records if record.levelno >= logging.ERROR]
    assert [info and type(info[1]) for info in errors] == [Stalled], "the proxy's log leaves planned ones out"
    assert Stalled.planned


async def test_a_stalled_reader_of_pieces_is_let_go_of() -> None:
    app = Export(pieces=True)
    async with _served(app) as port, _asked(port) as reader:
        await until(lambda: app.ended == 1, "what the reader doesn't take is made no more")
        assert 0 < app.made < ENOUGH
        assert await _rest(reader) < ENOUGH * len(_LINE)


async def test_how_long_an_answer_may_take_as_a_whole_has_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on while something of it is sent."""
    loop, sent = asyncio.get_running_loop(), list[Message]()
    now, late_s = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: now() + late_s)

    async def send(message: Message) -> None:
        nonlocal late_s
        late_s += PATIENT_S / 2
        await asyncio.sleep(0.001)
        sent.append(message)

    made = (_LINE for _ in range(10))
    await Streamed(made, {}, "text/plain", PATIENT_S)(_SCOPE, _nothing, send)
    assert late_s > 5 * PATIENT_S
    assert b"".join(message.get("body", b"") for message in sent) == _LINE * 10


async def _nothing() -> Message:
    raise AssertionError


async def test_a_slow_reader_gets_all_of_it() -> None:
    """For longer than one who takes nothing would be waited for."""
    app = Export(stalled_s=PATIENT_S)
    async with _served(app) as port, _asked(port) as reader:
        size, until_s = 0, asyncio.get_running_loop().time() + 2 * STALLED_S
        while asyncio.get_running_loop().time() < until_s:
            size += len(await reader.read(BUFFER))
            await asyncio.sleep(STALLED_S / 20)
        assert app.ended == 0
        assert size + await _rest(reader) > ENOUGH * len(_LINE)


async def test_an_answer_whose_caller_leaves_is_made_no_more() -> None:
    app = Export()
    async with _served(app) as port:
        async with _asked(port):
            await until(app.slot.locked, "the answer has begun")
        await until(lambda: app.ended == 1 and not app.slot.locked(), "the slot is free")
        assert app.made < ENOUGH


async def test_no_thread_waits_for_a_reader_that_is_gone() -> None:
    """One who leaves while the next piece is being made."""
    threads = ThreadPoolExecutor(2)
    asyncio.get_running_loop().set_default_executor(threads)

    def slowly() -> Iterator[bytes]:
        yield b"x" * 100_000
        time.sleep(0.3)
        yield b"x" * 100_000

    for _ in range(3):
        made = from_thread(slowly)
        assert len(await anext(made)) == 100_000
        reading = asyncio.ensure_future(anext(made))
        await asyncio.sleep(0.05)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        await made.aclose()
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 5) == "free"
    threads.shutdown()


async def test_a_reader_that_leaves_waits_for_the_thread_though_its_group_is_cancelled() -> None:
    begun, ended = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b"x" * 100_000
        begun.set()
        time.sleep(0.3)
        ended.set()

    async def reading() -> None:
        async with contextlib.aclosing(from_thread(slowly)) as chunks:
            async for _ in chunks:
                pass

    async with anyio.create_task_group() as group:  # as an answer is sent
        group.start_soon(reading)
        await until(begun.is_set, "the thread reads")
        group.cancel_scope.cancel()
    assert ended.is_set(), "what it holds was let go of while it read"


async def _rest(reader: asyncio.StreamReader) -> int:
    size = 0
    while data := await reader.read(1 << 20):
        size += len(data)
    return size
