"""OpenAI chat completions, the reply: what a body or a stream chunk means, as events.

Reads what OpenAI and the servers that copy it send: reasoning in any of its fields, content as text or parts,
function and custom tool calls, the legacy `function_call`, errors in-band, usage in any chunk.
"""

from __future__ import annotations

import zlib

import msgspec

from llm_proxy.chat.events import (
    CallDelta,
    Event,
    Finished,
    Frame,
    Reasoning,
    Refusal,
    Started,
    Text,
    Unreadable,
)
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.openai_chat import schema
from llm_proxy.wire.openai_chat.failure import bare_failure, failure
from llm_proxy.wire.openai_chat.frames import CALL_VALUE, ENDED, unreadable, unusual
from llm_proxy.wire.openai_chat.reasoning import add_reasoning, thought_signature
from llm_proxy.wire.openai_chat.usage import usage_seen
from llm_proxy.wire.spans import refuse_duplicates
from llm_proxy.wire.sse import SseFrame

FUNCTION_CALL_INDEX = -1
"""The index of a legacy `function_call`, which has none of its own."""

_UNINDEXED = 1 << 32
"""Calls that a server sent without an index get one from their id, above every real index."""

_chunk = msgspec.json.Decoder(schema.Chunk).decode
_body = msgspec.json.Decoder(schema.Body).decode


def read_frame(sse: SseFrame) -> Frame:
    """One frame of a stream. Comments and empty data mean nothing; what can't be parsed is `Unreadable`."""
    data = sse.data
    if sse.truncated or sse.event == "error" or not data.startswith(b"{"):
        return unusual(sse, read_frame)
    try:
        chunk = _chunk(data)
    except CANNOT_READ as error:
        return unreadable(sse.raw, error)
    choices = chunk.choices
    # `find`, since `in` first tries to read the bytes as a number, which takes longer than the search.
    if choices and len(choices) == 1 and chunk.usage is None and chunk.error is msgspec.UNSET:
        choice = choices[0]
        delta = choice.delta
        if (
            delta is not None
            and type(text := delta.content) is str
            and text
            and choice.finish_reason is None
            and _only_text(delta)
            and (data.find(b"_call") < 0 or CALL_VALUE.search(data) is None)
        ):
            return Frame(sse.raw, (Text(choice.index, text),))
    return Frame(sse.raw, _read_chunk(chunk, data))


def read_body(body: bytes) -> Frame:
    """A whole reply as one frame with all its events, `Ended` the last unless it failed or can't be read."""
    try:
        reply = _body(body)
    except CANNOT_READ as error:
        return unreadable(body, error)
    if failed := failure(reply.error):
        return Frame(body, (failed,))
    if reply.choices is None:
        return Frame(body, (bare_failure(body) or Unreadable("The reply has no choices"),))
    pairs = [(choice, choice.message) for choice in reply.choices]
    if why := _ambiguity(body, [message for _, message in pairs if message]):
        return Frame(body, (Unreadable(why),))
    events: list[Event] = [_started(reply)]
    for choice, message in pairs:
        if message:
            _add_message(choice.index, message, events)
        if choice.finish_reason:
            events.append(Finished(choice.index, _reason(choice.finish_reason)))
    if reply.usage:
        events.append(usage_seen(reply.usage, reply.service_tier))
    return Frame(body, (*events, *ENDED))


def call_index(position: int, call: schema.Call) -> int:
    """A streamed call's index. Servers that leave it out send whole calls: told apart by their ids."""
    if call.index is not None:
        return call.index
    return _UNINDEXED + zlib.crc32(call.id.encode()) if call.id else position


def _only_text(delta: schema.Message) -> bool:
    return (
        delta.role is None
        and not delta.reasoning_content
        and not delta.reasoning
        and not delta.tool_calls
        and not delta.reasoning_details
        and not delta.refusal
        and delta.function_call is None
        and not delta.encrypted_content
        and not delta.thinking_blocks
        and delta.extra_content is msgspec.UNSET
    )


def _read_chunk(chunk: schema.Chunk, data: bytes) -> tuple[Event, ...]:
    events: list[Event] = []
    choices = chunk.choices or []
    deltas = [choice.delta for choice in choices if choice.delta]
    if b"_call" in data and (why := _ambiguity(data, deltas)):
        return (Unreadable(why),)
    failed = failure(chunk.error)
    if chunk.usage or any(c.finish_reason or (c.delta and c.delta.role) for c in choices):
        events.append(_started(chunk))
    for choice in choices:
        if choice.delta:
            _add_message(choice.index, choice.delta, events, streamed=True)
        if choice.finish_reason and not failed:
            events.append(Finished(choice.index, _reason(choice.finish_reason)))
    if chunk.usage:
        events.append(usage_seen(chunk.usage, chunk.service_tier, only=not choices and not failed))
    if failed:
        events.append(failed)
    elif not choices and not chunk.usage and (bare := bare_failure(data)):
        events.append(bare)
    return tuple(events)


def _add_message(
    choice: int, message: schema.Message, events: list[Event], *, streamed: bool = False
) -> None:
    add_reasoning(choice, message, events)
    if isinstance(message.content, list):
        _add_parts(choice, message.content, events)
    elif message.content:
        events.append(Text(choice, message.content))
    if message.refusal:
        events.append(Refusal(choice, message.refusal))
    for position, call in enumerate(message.tool_calls or ()):
        events.append(_call_delta(choice, call_index(position, call) if streamed else position, call))
    if function := message.function_call:
        events.append(
            CallDelta(choice, FUNCTION_CALL_INDEX, "", function.name or "", function.arguments or "")
        )


def _call_delta(choice: int, index: int, call: schema.Call) -> CallDelta:
    id_ = call.id or ""
    signature = thought_signature(call.extra_content)
    if custom := call.custom:
        return CallDelta(choice, index, id_, custom.name or "", custom.input or "", True, signature)
    function = call.function or schema.Function()
    return CallDelta(choice, index, id_, function.name or "", function.arguments or "", False, signature)


def _add_parts(choice: int, parts: list[schema.Part], events: list[Event]) -> None:
    for part in parts:
        if part.thinking:
            events.append(Reasoning(choice, _thinking(part.thinking)))
        if part.text:
            events.append(Text(choice, part.text))
        if part.refusal:
            events.append(Refusal(choice, part.refusal))


def _thinking(thinking: str | list[schema.Part]) -> str:
    return thinking if isinstance(thinking, str) else "".join([part.text or "" for part in thinking])


def _started(reply: schema.Chunk | schema.Body) -> Started:
    return Started("" if reply.id is None else str(reply.id), reply.model or "")


def _reason(finish_reason: str) -> str:
    return "tool_call" if finish_reason in ("tool_calls", "function_call") else finish_reason


def _ambiguity(data: bytes, messages: list[schema.Message]) -> str:
    """Why the calls in `data` could be read in another way than they were, or nothing.

    A client must not find a call that was not judged: none outside the places read here, no key twice
    (parsers differ on which they keep), and no call of two kinds at once.
    """
    containers = len(CALL_VALUE.findall(data))
    read = sum((1 if message.tool_calls else 0) + (1 if message.function_call else 0) for message in messages)
    if containers > read:
        return "The reply holds tool calls where none belong"
    if not read:
        return ""
    if any(call.custom and call.function for message in messages for call in message.tool_calls or ()):
        return "A tool call is of two kinds at once"
    try:
        refuse_duplicates(data)
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""
