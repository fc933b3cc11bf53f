"""OpenAI legacy completions, the reply: what a body or a stream chunk means, as events.

A body and a chunk have the same shape: each choice with a `text`.
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import Event, Finished, Frame, Started, Text, Unreadable
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.openai_chat.failure import bare_failure, failure
from llm_proxy.wire.openai_chat.frames import CALL_VALUE, ENDED, unreadable, unusual
from llm_proxy.wire.openai_chat.schema import Usage
from llm_proxy.wire.openai_chat.usage import usage_seen
from llm_proxy.wire.sse import SseFrame


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    text: str | None = None
    finish_reason: str | None = None


class _Reply(msgspec.Struct, gc=False):
    id: str | int | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    service_tier: object = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_reply = msgspec.json.Decoder(_Reply).decode
_CALLS = Unreadable("The reply holds tool calls where none belong")


def read_frame(sse: SseFrame) -> Frame:
    """One frame of a stream. Comments and empty data mean nothing; what can't be parsed is `Unreadable`."""
    data = sse.data
    if sse.truncated or sse.event == "error" or not data.startswith(b"{"):
        return unusual(sse, read_frame)
    try:
        chunk = _reply(data)
    except CANNOT_READ as error:
        return unreadable(sse.raw, error)
    if _holds_calls(data):
        return Frame(sse.raw, (_CALLS,))
    choices = chunk.choices
    if choices and len(choices) == 1 and chunk.usage is None and chunk.error is msgspec.UNSET:
        choice = choices[0]
        if choice.text and choice.finish_reason is None:
            return Frame(sse.raw, (Text(choice.index, choice.text),))
    return Frame(sse.raw, _read_chunk(chunk, data))


def read_body(body: bytes) -> Frame:
    """A whole reply as one frame with all its events, `Ended` the last unless it failed or can't be read."""
    try:
        reply = _reply(body)
    except CANNOT_READ as error:
        return unreadable(body, error)
    if failed := failure(reply.error):
        return Frame(body, (failed,))
    if reply.choices is None:
        return Frame(body, (bare_failure(body) or Unreadable("The reply has no choices"),))
    if _holds_calls(body):
        return Frame(body, (_CALLS,))
    events: list[Event] = [_started(reply)]
    for choice in reply.choices:
        _add_choice(choice, events)
    if reply.usage:
        events.append(usage_seen(reply.usage, reply.service_tier))
    return Frame(body, (*events, *ENDED))


def _read_chunk(chunk: _Reply, data: bytes) -> tuple[Event, ...]:
    events: list[Event] = []
    choices = chunk.choices or ()
    failed = failure(chunk.error)
    if chunk.usage or any(choice.finish_reason for choice in choices):
        events.append(_started(chunk))
    for choice in choices:
        _add_choice(choice, events, failed=failed is not None)
    if chunk.usage:
        events.append(usage_seen(chunk.usage, chunk.service_tier, only=not choices and not failed))
    if failed:
        events.append(failed)
    elif not choices and not chunk.usage and (bare := bare_failure(data)):
        events.append(bare)
    return tuple(events)


def _add_choice(choice: _Choice, events: list[Event], *, failed: bool = False) -> None:
    if choice.text:
        events.append(Text(choice.index, choice.text))
    if choice.finish_reason and not failed:
        events.append(Finished(choice.index, choice.finish_reason))


def _started(reply: _Reply) -> Started:
    return Started("" if reply.id is None else str(reply.id), reply.model or "")


def _holds_calls(data: bytes) -> bool:
    """Whether a server answered with a chat reply's calls, which nobody would judge here."""
    return b"_call" in data and CALL_VALUE.search(data) is not None
