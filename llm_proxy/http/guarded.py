"""Connections that can't be held for nothing: uvicorn's protocol, with bounds on what comes before a request.

The server below has none of its own: a client that never ends its headers, or never sends the body that it
announced, would keep its connection for ever, and headers of any length would be taken in.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger("llm_proxy.http")

HEAD_S = 30.0
"""How long a new connection, or a request that has begun, may take until its headers are whole."""
BODY_IDLE_S = 60.0
"""How long nothing may come of a body."""
MOST_HEAD = 128 << 10
"""Bytes that may come before the headers are whole, and between two pieces of a body or behind the last."""
_EVERY_S = 5.0
_SAY_S = 10.0
_TOO_LARGE = b"The request's headers are over 128 KiB: send less."
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_TOO_LARGE), _TOO_LARGE)
)


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `most` is how many the process takes; further ones are closed as they come."""

    most: ClassVar[int] = 10_000
    stopping: ClassVar[bool] = False
    """Whether the server waits for its last answers: those that would go on by themselves end then."""
    _said: ClassVar[float] = float("-inf")

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._began: float | None = None
        """Since when headers are waited for; None where they are whole."""
        self._head = 0
        """Bytes that came since then, or since the last of a body came."""
        self._moved = False
        """What came last ended headers, or was of a body."""
        self._heard: float | None = None
        """When something of a body came last; None where none is waited for."""
        self._check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._turn_away(transport)
            return
        self._began = self.loop.time()
        self._check = self.loop.call_later(_EVERY_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._check is not None:
            self._check.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        GuardedProtocol.stopping = True
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        self._moved = False
        super().data_received(data)
        if self._moved:  # what is whole by now, and what came behind it, was no larger than one read
            self._head = 0
        elif self._began is not None or self._heard is not None:
            self._head += len(data)
            if self._head > MOST_HEAD and not self.transport.is_closing():
                self._refuse()

    def on_message_begin(self) -> None:
        self._began = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._began, self._moved = None, True
        self._heard = self.loop.time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._heard, self._moved = self.loop.time(), True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._heard, self._moved = None, True
        super().on_message_complete()

    def _look(self) -> None:
        now = self.loop.time()
        late = self._began is not None and now - self._began > HEAD_S
        if (late or (self._heard is not None and now - self._heard > BODY_IDLE_S)) and not self._answering:
            self.transport.close()
        else:
            self._check = self.loop.call_later(_EVERY_S, self._look)

    @property
    def _answering(self) -> bool:
        """Whether an earlier request has come whole, and its reply has not gone out."""
        cycle: Any = self.cycle  # None before the first request
        return bool(self.pipeline or (cycle and not cycle.response_complete and not cycle.more_body))

    def _refuse(self) -> None:
        cycle: Any = self.cycle
        idle = cycle is None or cycle.response_complete or not cycle.response_started
        if idle and not self.pipeline:
            self.transport.write(_REFUSAL)
        self.transport.close()

    def _turn_away(self, transport: asyncio.Transport) -> None:
        now = self.loop.time()
        if now - GuardedProtocol._said > _SAY_S:
            GuardedProtocol._said = now
            log.warning("there are too many connections (server.max_connections)", most=self.most)
        transport.abort()
