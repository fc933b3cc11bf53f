"""What a reply said, read once more from its kept bytes."""

from __future__ import annotations

from collections.abc import Iterator

from llm_proxy.chat.events import Event
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.sse import SseReader

_PIECE = 1 << 20
"""Bytes read at a time, so that a large stream isn't held a second time."""


def events_of(dialect: Dialect, came: bytes, *, streamed: bool) -> Iterator[Event]:
    """Every event of a whole reply or of a stream, in order. Raises `FrameTooLarge`."""
    if not streamed:
        yield from dialect.read_body(came).events
        return
    reader, read = SseReader(), dialect.frame_reader()
    view = memoryview(came)
    for start in range(0, len(came), _PIECE):
        for sse in reader.feed(bytes(view[start : start + _PIECE])):
            yield from read(sse).events
    for sse in reader.close():
        yield from read(sse).events
