"""The dialects a benchmark speaks: where each is served, and how a whole stream of it looks."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Dialect(StrEnum):
    CHAT = "chat"
    MESSAGES = "messages"
    RESPONSES = "responses"


class Shape(NamedTuple):
    """`around` is how many `data:` events stand around a reply's text deltas; `last` starts the last one.

    `whole` is found in every reply that isn't streamed."""

    path: str
    around: int
    last: bytes
    whole: bytes


SHAPES = {
    Dialect.CHAT: Shape("/v1/chat/completions", 2, b"data: [DONE]", b'"choices"'),
    Dialect.MESSAGES: Shape("/v1/messages", 5, b"event: message_stop\n", b'"content"'),
    Dialect.RESPONSES: Shape("/v1/responses", 8, b"event: response.completed\n", b'"output"'),
}


def last_event(stream: bytes) -> bytes:
    """The stream's last event, empty where its blank line is missing."""
    if not stream.endswith(b"\n\n"):
        return b""
    return stream[stream.rfind(b"\n\n", 0, -2) + 1 :].lstrip(b"\n")
