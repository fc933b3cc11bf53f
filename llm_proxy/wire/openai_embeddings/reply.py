"""OpenAI embeddings, the reply: its usage. The vectors are passed over, never decoded."""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import Ended, Event, Frame, Started, Unreadable, Usage, UsageSeen
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.openai_chat.failure import bare_failure, failure
from llm_proxy.wire.sse import SseFrame


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    total_tokens: int | None = None
    """All that Voyage and Jina send."""


class _Reply(msgspec.Struct, gc=False):
    model: str | None = None
    usage: _Usage | None = None
    object: str | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_reply = msgspec.json.Decoder(_Reply).decode


def read_body(body: bytes) -> Frame:
    """A whole reply as one frame, `Ended` its last event unless it failed or is not a JSON object."""
    try:
        reply = _reply(body)
    except CANNOT_READ as error:
        return Frame(body, (Unreadable(f"The reply can't be parsed: {error}"),))
    failed = failure(reply.error) or (bare_failure(body) if reply.object == "error" else None)
    if failed:
        return Frame(body, (failed,))
    events: list[Event] = [Started("", reply.model or "")]
    if usage := _usage(reply.usage):
        events.append(UsageSeen(usage))
    return Frame(body, (*events, Ended()))


def read_frame(sse: SseFrame) -> Frame:
    """Embeddings are never streamed: a frame with any data is unreadable."""
    return Frame(sse.raw, (Unreadable("Embeddings came as a stream"),)) if sse.data else Frame(sse.raw)


def _usage(usage: _Usage | None) -> Usage | None:
    if usage is None:
        return None
    tokens = usage.total_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    return None if tokens is None else Usage(input=max(0, tokens))
