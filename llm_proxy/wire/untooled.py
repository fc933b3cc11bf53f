"""Replies without tool calls and requests without sealed reasoning: nothing to take out, nothing to find."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from llm_proxy.chat.events import Frame
from llm_proxy.wire.dialect import Denied, Signed


def edit_body(body: bytes, denied: Denied) -> bytes:
    """The same object: no call can stand in it, so none was denied."""
    return body


def edit_frames(frames: Sequence[Frame], denied: Denied, spoken: Collection[int] = ()) -> list[bytes]:
    """The held frames as they came."""
    return [frame.raw for frame in frames]


def signed(raw: bytes) -> tuple[Signed, ...]:
    """No message carries a seal."""
    return ()
