"""An upstream that answers with exactly the bytes a test gives it, for what a scripted model can't say."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence

Answer = Sequence[bytes | float]
"""The response, status line and all: bytes to write, and seconds to wait between them."""


class RawUpstream:
    """What reached it, and how many of its callers hung up before they had everything."""

    def __init__(self, answer: Callable[[bytes], Answer]) -> None:
        self._answer = answer
        self.base_url = ""
        self.bodies: list[bytes] = []
        self.gone = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            body = await _body(reader)
            self.bodies.append(body)
            for piece in self._answer(body):
                if isinstance(piece, bytes):
                    writer.write(piece)
                    await writer.drain()
                else:
                    await self._wait(reader, piece)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone += 1
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _wait(self, reader: asyncio.StreamReader, seconds: float) -> None:
        """A pause that a caller who hangs up ends."""
        with contextlib.suppress(TimeoutError):
            if await asyncio.wait_for(reader.read(1), seconds) == b"":
                raise ConnectionResetError


async def _body(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return await reader.readexactly(int(lengths[0].partition(b":")[2]))


@contextlib.asynccontextmanager
async def raw_upstream(answer: Callable[[bytes], Answer]) -> AsyncGenerator[RawUpstream]:
    """Serves on a free port until the block ends; `answer` is asked once per request, with its body."""
    upstream = RawUpstream(answer)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream.base_url = f"http://127.0.0.1:{port}/v1"
    try:
        yield upstream
    finally:
        server.close()


def model_of(body: bytes) -> str:
    return json.loads(body)["model"]


def whole(body: bytes, status: str = "200 OK", content_type: str = "application/json") -> list[bytes | float]:
    """A response that announces its length."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    return [head.encode() + b"connection: close\r\n\r\n" + body]


def events(*pieces: bytes | float) -> list[bytes | float]:
    """An event stream in chunks, one for each piece, ended properly."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(p), p) if isinstance(p, bytes) else p for p in pieces]
    return [head + b"connection: close\r\n\r\n", *chunks, b"0\r\n\r\n"]
