"""OpenAI, what chat and legacy completions have in common in a stream: its end, errors, cuts, stray calls."""

from __future__ import annotations

import re
from collections.abc import Callable

from llm_proxy.chat.events import Ended, Frame, Unreadable
from llm_proxy.wire.openai_chat.failure import failed_event
from llm_proxy.wire.sse import SseFrame

ENDED = (Ended(),)
CALL_VALUE = re.compile(rb'"(?:tool_calls|function_call)"\s*:\s*(?:\[\s*\{|\{)')
"""A key that calls stand under, with a value that may hold one."""


def unusual(sse: SseFrame, read: Callable[[SseFrame], Frame]) -> Frame:
    """A frame that is no whole chunk. Where there is one behind blanks, `read` reads it."""
    data = sse.data.strip()
    if data.startswith(b"[DONE]"):
        return Frame(sse.raw, ENDED)
    if sse.truncated:
        return Frame(sse.raw, (Unreadable("The stream was cut inside an event"),))
    if sse.event == "error":
        return Frame(sse.raw, (failed_event(data),))
    if not data:
        return Frame(sse.raw)
    if data.startswith(b"{"):
        return read(SseFrame(sse.raw, "", data))
    return Frame(sse.raw, (Unreadable("The event's data is not a JSON object"),))


def unreadable(raw: bytes, error: Exception) -> Frame:
    return Frame(raw, (Unreadable(f"The reply can't be parsed: {error}"),))
