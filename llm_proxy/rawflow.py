"""A reply that passes through as it is: any status, any type of body, streamed as it comes.

Nothing of it is judged, since nothing of it is a model's proposal; its usage is read where it tells one. One
chunk is always kept back, so that the last byte waits for the record's commit.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from llm_proxy.chat.events import Failed, Unreadable
from llm_proxy.chat.reply import Assembly
from llm_proxy.flow import MAX_REPLY
from llm_proxy.upstream.provider import UpstreamFailure, UpstreamReply
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.replay import events_of
from llm_proxy.wire.sse import FrameTooLarge
from routing.failures import FailureKind


@runtime_checkable
class RawSink(Protocol):
    """Where the reply goes, head and all."""

    started: bool

    def head(self, status: int, content_type: str, headers: Mapping[str, str]) -> None: ...

    async def release(self, data: bytes) -> None: ...

    async def finish(self, tail: bytes) -> None: ...


class RawFlow:
    """One attempt's reply, of the same shape as `flow.Flow`."""

    def __init__(self, dialect: Dialect, sink: RawSink) -> None:
        self._dialect = dialect
        self._sink = sink
        self._size = 0
        self._kept = b""
        self._json = False
        self.streamed = False
        self.assembly = Assembly()
        self.emitted = io.BytesIO()
        self.left_out = None
        self.gave = False
        """Whether the caller has something of this attempt."""
        self.ended = False
        """A reply of unknown shape ends where its body does."""

    def begin(self, reply: UpstreamReply) -> None:
        self.streamed = reply.streamed
        self._json = "json" in reply.content_type.lower()
        self._sink.head(reply.status, reply.content_type, reply.headers)

    async def feed(self, chunk: bytes) -> None:
        self.emitted.write(chunk)
        self._size += len(chunk)
        if self._size > MAX_REPLY:
            raise UpstreamFailure(FailureKind.MALFORMED, f"the reply is over {MAX_REPLY >> 20} MiB")
        if self._kept:
            self.gave = True
            await self._sink.release(self._kept)
        self._kept = chunk

    said_all = False

    def arrived(self) -> None:
        """Whatever came is the caller's, whole or not."""

    async def end(self) -> bytes:
        """Reads what the reply says of its usage; returns its last chunk."""
        if self.streamed or self._json:
            self._read()
        self.assembly.ended = True
        return self._kept

    def released(self, tail: bytes) -> list[bytes] | None:
        """None: the caller received what the server sent."""
        return None

    def left(self) -> None:
        """No other target can go on with what nobody read."""

    def _read(self) -> None:
        """Errors inside are the caller's to see: the reply passed."""
        try:
            for event in events_of(self._dialect, self.emitted.getvalue(), streamed=self.streamed):
                if not isinstance(event, (Failed, Unreadable)):
                    self.assembly.add(event)
        except FrameTooLarge:
            return
