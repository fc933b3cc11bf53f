"""What passes through, the reply: its usage where it tells it, its end where it marks it, nothing else.

Nothing is unreadable, since nothing has to be read: a reply may be sound, a picture, or JSON of any shape.
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import Ended, Event, Failed, Finished, Frame, Usage, UsageSeen
from llm_proxy.wire.lenient import NONE, lenient, string
from llm_proxy.wire.openai_chat.failure import failed_event, failure
from llm_proxy.wire.sse import SseFrame
from llm_proxy.wire.tokens_told import InputDetails, OutputDetails, told

_LAST = frozenset(
    {
        "image_edit.completed",
        "image_generation.completed",
        "speech.audio.done",
        "transcript.text.done",
    }
)
"""Events behind which nothing but another picture comes. These streams have no end marker."""


class _Usage(msgspec.Struct, gc=False):
    """Images and transcriptions say input and output, the older APIs prompt and completion, Jina a total."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None
    prompt_tokens_details: InputDetails | None = None
    input_token_details: InputDetails | None = None
    """Transcriptions' word for it."""


class _Reply(msgspec.Struct):
    type: msgspec.Raw = NONE
    status: msgspec.Raw = NONE
    usage: msgspec.Raw = NONE
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_reply = lenient(_Reply)
_usage = lenient(_Usage)


def read_body(body: bytes) -> Frame:
    """A whole reply: its usage where it is a JSON object that has one, and `Ended`.

    An object with a `status` is a job or a batch that is looked at: it tells its usage anew each time, and so
    counts as having none. An `error` in a reply of 200 is such a job's state, and no failure of the call.
    """
    events: tuple[Event, ...] = (Ended(),)
    if reply := _read(body):
        usage = None if bytes(reply.status) != b"null" else _read_usage(reply.usage)
        if usage:
            events = (UsageSeen(usage), *events)
    return Frame(body, events)


def read_frame(sse: SseFrame) -> Frame:
    """One frame of a stream: usage, an error, or the event that comes last; any other means nothing here."""
    data = sse.data
    if not data or sse.truncated:
        return Frame(sse.raw)
    if sse.event == "error":
        return Frame(sse.raw, (failed_event(data),))
    reply = _read(data)
    if reply is None:
        return Frame(sse.raw, (Ended(),) if data.strip().startswith(b"[DONE]") else ())
    kind = string(reply.type) or ""
    if failed := _failure(reply, kind, data):
        return Frame(sse.raw, (failed,))
    events: list[Event] = []
    if usage := _read_usage(reply.usage):
        events.append(UsageSeen(usage))
    if (kind or sse.event) in _LAST:
        events.append(Finished(0, "stop"))
    return Frame(sse.raw, tuple(events))


def _failure(reply: _Reply, kind: str, data: bytes) -> Failed | None:
    return failed_event(data) if kind == "error" else failure(reply.error)


def _read(data: bytes) -> _Reply | None:
    if not data[:64].lstrip().startswith(b"{"):
        return None
    return _reply(data)


def _read_usage(raw: msgspec.Raw) -> Usage | None:
    usage = _usage(raw)
    if usage is None:
        return None
    given = _first(usage.input_tokens, usage.prompt_tokens)
    made = _first(usage.output_tokens, usage.completion_tokens)
    if given is None and made is None:
        given = usage.total_tokens
        if given is None:
            return None
    inputs = usage.input_tokens_details or usage.prompt_tokens_details or usage.input_token_details
    return told(max(0, given or 0), max(0, made or 0), inputs, usage.output_tokens_details)


def _first(one: int | None, other: int | None) -> int | None:
    return other if one is None else one
