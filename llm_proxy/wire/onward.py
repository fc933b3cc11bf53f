"""A reply that goes on in a second one of the same dialect: what a dialect has to say for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llm_proxy.chat.reply import ToolCall
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.retelling import History
from llm_proxy.wire.spans import Edit
from llm_proxy.wire.sse import SseFrame, SseReader


class Onward(Protocol):
    """Puts the frames of a further reply behind those of the ones before it: one start, one end, numbers
    that go on, usage that is added up. Stateful: one per reply."""

    id: str
    """The reply's id as the caller knows it; empty where nothing has gone out yet."""

    def say(self, text: str) -> bytes:
        """Words of the proxy's own choosing, before the further reply begins."""
        ...

    def frame(self, raw: bytes) -> bytes:
        """One frame of the further reply as it stands there; empty where it says nothing new."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Onwards:
    """How replies of a dialect are joined."""

    stream: Callable[[bytes, Sequence[bytes]], Onward]
    """`(so_far, came)`: what the caller has received, and each earlier reply's whole stream."""
    body: Callable[[Sequence[bytes], bytes], bytes]
    """Whole replies: the earlier ones without any of their calls, and the last one as it is."""
    history: History
    append: Callable[[WireRequest, Sequence[bytes]], list[Edit]]
    """Edits that put further messages behind a request's last one."""
    answers: Callable[[ToolCall], bool]
    """Whether a result in plain text answers such a call."""


def behind_last(request: WireRequest, messages: Sequence[bytes]) -> list[Edit]:
    """Where a request's messages are an array with at least one in it."""
    end = request.message_spans[-1][1]
    return [(end, end, b"".join([b"," + message for message in messages]))]


def frames_of(stream: bytes) -> list[SseFrame]:
    """Every frame of a stream. Raises `FrameTooLarge`."""
    reader = SseReader()
    return [*reader.feed(stream), *reader.close()]
