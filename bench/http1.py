"""HTTP/1.1 over asyncio protocols, just enough to measure with: a server's side and a client's."""

from __future__ import annotations

import asyncio
import re
import signal
from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple, cast

HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)


class Request(NamedTuple):
    """`head` runs from the request line to the last header, without the blank line."""

    head: bytes
    body: bytes

    @property
    def target(self) -> bytes:
        """The request line's path, query included."""
        return self.head.split(b" ", 2)[1]


class ServerConnection(asyncio.Protocol):
    """One keep-alive connection of a server. Requests must carry `content-length`; a chunked one gets 411."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = 0

    @abstractmethod
    def answer(self, request: Request) -> None:
        """Answer one request, at once or over later turns of the loop."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._buffer and len(self._buffer) >= self._needed:
            request = self._take()
            if request is None:
                return
            self.answer(request)

    def _take(self) -> Request | None:
        """The next whole request, or None where more bytes must come first."""
        head_end = self._buffer.find(HEAD_END)
        if head_end < 0:
            return None
        head = bytes(self._buffer[:head_end])
        length = _LENGTH.search(head)
        if length is None and _CHUNKED.search(head):
            self.reply(411, b"send content-length\n", b"text/plain")
            self.transport.close()
            self._buffer.clear()
            return None
        start = head_end + len(HEAD_END)
        end = start + (int(length[1]) if length else 0)
        if len(self._buffer) < end:
            self._needed = end
            return None
        body = bytes(self._buffer[start:end])
        del self._buffer[:end]
        self._needed = 0
        return Request(head, body)

    def reply(self, status: int, body: bytes, content_type: bytes = b"application/json") -> None:
        self.transport.write(
            b"HTTP/1.1 %d \r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (status, content_type, len(body), body)
        )


async def serve(connection: Callable[[], asyncio.Protocol], port: int) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(connection, "127.0.0.1", port, backlog=1024)
    await stop.wait()
    server.close()


class ReplyReader:
    """Reads one reply, by content-length, chunked, or to the end of the connection. A pure state machine."""

    __slots__ = ("_head", "_length", "_received", "_rest", "chunked", "parts", "status")

    def __init__(self) -> None:
        self.status = 0
        self.chunked = False
        self.parts: list[bytes] = []
        self._head = True
        self._length = -1
        self._received = 0
        self._rest = b""

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def ends_with_connection(self) -> bool:
        """True where only the connection's end says that the reply is whole."""
        return not self._head and not self.chunked and self._length < 0

    def feed(self, data: bytes) -> bool:
        """Take bytes as they came; True once the reply is whole. ValueError where it isn't HTTP/1.1."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        if self._head:
            end = data.find(HEAD_END)
            if end < 0:
                self._rest = data
                return False
            self._read_head(data[:end])
            data = data[end + len(HEAD_END) :]
        return self._feed_chunks(data) if self.chunked else self._feed_plain(data)

    def _read_head(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 "):
            raise ValueError(f"not an HTTP/1.1 reply: {head[:40]!r}")
        self.status = int(head[9:12])
        self.chunked = _CHUNKED.search(head) is not None
        length = _LENGTH.search(head)
        self._length = int(length[1]) if length else -1
        self._head = False

    def _feed_plain(self, data: bytes) -> bool:
        if data:
            self.parts.append(data)
            self._received += len(data)
        return 0 <= self._length <= self._received

    def _feed_chunks(self, data: bytes) -> bool:
        at = 0
        while True:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                break
            size = int(data[at:line_end].split(b";", 1)[0], 16)
            start, end = line_end + 2, line_end + 2 + size
            if len(data) < end + 2:
                break
            if size == 0:
                return True
            self.parts.append(data[start:end])
            at = end + 2
        self._rest = data[at:]
        return False
