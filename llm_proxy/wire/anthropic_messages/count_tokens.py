"""Anthropic's count of a prompt's tokens: a number for an answer, which costs nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from llm_proxy.chat.events import Ended, Frame, Unreadable
from llm_proxy.wire.anthropic_messages.failure import failure
from llm_proxy.wire.dialect import Denied
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.sse import SseFrame


class _Count(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_count = msgspec.json.Decoder(_Count).decode


def count_body(tokens: int) -> bytes:
    """The answer that the prompt has `tokens` tokens."""
    return b'{"input_tokens":%d}' % tokens


def read_body(body: bytes) -> Frame:
    """A count means its own end and nothing else: no usage, since counting is free."""
    try:
        reply = _count(body)
    except CANNOT_READ as error:
        return Frame(body, (Unreadable(f"The reply can't be parsed: {error}"),))
    if reply.input_tokens is not None:
        return Frame(body, (Ended(),))
    if reply.error is not msgspec.UNSET:
        return Frame(body, (failure(reply.error),))
    return Frame(body, (Unreadable("The reply has no input_tokens"),))


def read_frame(sse: SseFrame) -> Frame:
    """A count is never streamed."""
    return Frame(sse.raw, (Unreadable("A count of tokens came as a stream"),))


def edit_body(body: bytes, denied: Denied) -> bytes:
    """The body: it holds no call."""
    return body


def edit_frames(frames: Sequence[Frame], denied: Denied, spoken: Collection[int] = ()) -> list[bytes]:
    """The frames: they hold no call."""
    return [frame.raw for frame in frames]
