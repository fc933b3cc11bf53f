"""Anthropic Messages, the reply: what a body or a stream's event means, as events.

A block's index is its place in the message; calls and reasoning carry it. `Reader` (`stream`) is what reads a
stream: `read_frame` here sees one event without those before it.
"""

from __future__ import annotations

import re

import msgspec

from llm_proxy.chat.events import (
    ANTHROPIC_FORMAT,
    CallDelta,
    Ended,
    Event,
    Finished,
    Frame,
    Reasoning,
    ReasoningKind,
    Refusal,
    ServerTool,
    Started,
    Text,
    Unreadable,
)
from llm_proxy.wire.anthropic_messages import schema
from llm_proxy.wire.anthropic_messages.failure import failed_event, failure
from llm_proxy.wire.anthropic_messages.usage import usage_seen
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.spans import refuse_duplicates
from llm_proxy.wire.sse import SseFrame

_event = msgspec.json.Decoder(schema.StreamEvent).decode
_body = msgspec.json.Decoder(schema.Body).decode
_decode_block = msgspec.json.Decoder(schema.Block).decode

ENDED = (Ended(),)
_SILENT = schema.Delta()
_CUT = "The stream was cut inside an event"
_TYPES = 2
"""The keys `type` in a delta event: its own and the delta's."""
_ESCAPED_KEY = re.compile(rb'\\u[^"\\]*+(?:\\.[^"\\]*+)*+"\s*+:')
"""Half of a string that has an escaped character and stands before a colon."""
_SHORT = 2_048
"""Bytes up to which the search for such keys, whose time grows with the square, is worth it."""
_REASONS = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_call",
    "pause_turn": "pause",
}
"""Neutral words for stop reasons; the others are neutral as they are."""


def read_body(body: bytes) -> Frame:
    """A whole reply as one frame with all its events, `Ended` the last unless it failed or can't be read."""
    try:
        reply = _body(body)
        if reply.type == "error" or (reply.content is None and reply.error is not msgspec.UNSET):
            return Frame(body, (failure(reply.error),))
        if reply.content is None:
            return Frame(body, (Unreadable("The reply has no content"),))
        parsed = [(_block(raw), raw) for raw in reply.content]
        blocks = [(block, b"" if block.type == "text" else bytes(raw)) for block, raw in parsed]
    except CANNOT_READ as error:
        return unreadable(body, f"The reply can't be parsed: {error}")
    if (b"tool_use" in body or b"\\u" in body) and (why := _repeats(body)):
        return unreadable(body, why)
    events: list[Event] = [Started(reply.id or "", reply.model or "")]
    for index, (block, raw) in enumerate(blocks):
        events += block_events(index, block, raw)
    events += ending(reply.stop_reason, reply.stop_sequence, reply.stop_details)
    if reply.usage:
        events.append(usage_seen(reply.usage))
    return Frame(body, (*events, *ENDED))


def read_frame(sse: SseFrame) -> Frame:
    """One event by itself: streamed arguments are taken for a call's, whatever block they belong to."""
    event = parse_event(sse)
    if isinstance(event, Frame):
        return event
    match event.type:
        case "content_block_delta":
            events = delta_events(event)
        case "content_block_start":
            block = start_block(event)
            events = (
                (block,)
                if isinstance(block, Unreadable)
                else start_events(event.index, block, event.content_block)
            )
        case _:
            events = other_events(event, event.usage)
    return Frame(sse.raw, events)


def parse_event(sse: SseFrame) -> schema.StreamEvent | Frame:
    """What an event says, or the frame itself where it is not one, failed, or can't be trusted.

    SDKs go by the event's name or by its type, so the two must agree, and no key may stand twice, since
    parsers differ on which they keep. A cut event is read only if it's the one that ends the message.
    """
    data = sse.data
    if sse.event == "error" or not data.startswith(b"{"):
        return _unusual(sse)
    try:
        event = _event(data)
    except CANNOT_READ as error:
        return unreadable(sse.raw, _CUT if sse.truncated else f"The event can't be parsed: {error}")
    if why := _mistrusted(sse, event):
        return unreadable(sse.raw, why)
    if event.type == "error":
        return Frame(sse.raw, (failure(event.error),))
    return Frame(sse.raw, inert=True) if event.type == "ping" else event


def _block(raw: msgspec.Raw) -> schema.Block:
    """Raises for what has a call's input under a type that nobody knows: a client might yet run it."""
    block = _decode_block(raw)
    if not isinstance(block.input, msgspec.UnsetType) and not block.type.endswith("tool_use"):
        raise msgspec.ValidationError("a block that is no tool use has an `input`")
    return block


def start_block(event: schema.StreamEvent) -> schema.Block | Unreadable:
    """The block that an event starts."""
    if isinstance(event.content_block, msgspec.UnsetType):
        return Unreadable("A content block starts without the block")
    try:
        return _block(event.content_block)
    except CANNOT_READ as error:
        return Unreadable(f"The content block can't be parsed: {error}")


def start_events(index: int, block: schema.Block, raw: msgspec.Raw | msgspec.UnsetType) -> tuple[Event, ...]:
    """What a started block says: a call's `{}` only stands for the arguments to come."""
    whole = b"" if block.type.endswith("tool_use") or isinstance(raw, msgspec.UnsetType) else bytes(raw)
    events = block_events(index, block, whole)
    if schema.is_call(block.type) and not has_input(block):
        (call,) = events
        assert isinstance(call, CallDelta)
        return (CallDelta(0, index, call.id, call.name),)
    return tuple(events)


def has_input(block: schema.Block) -> bool:
    """Whether a started call brings its arguments along."""
    if isinstance(block.input, msgspec.UnsetType):
        return False
    return b"".join(bytes(block.input).split()) not in (b"{}", b"null")


def block_events(index: int, block: schema.Block, raw: bytes) -> list[Event]:
    """What a whole block says. Blocks that are neither words, reasoning nor tools say nothing."""
    type_ = block.type
    if type_ == "text":
        return [Text(0, block.text)] if block.text else []
    if type_ == "thinking":
        return _thought(index, block.thinking or "", block.signature or "")
    if type_ == "redacted_thinking":
        data = block.data or ""
        return [Reasoning(0, data, ReasoningKind.REDACTED, index, format=ANTHROPIC_FORMAT)]
    return _tool_events(index, block, raw)


def delta_events(event: schema.StreamEvent) -> tuple[Event, ...]:
    """What a block's next piece says; a piece of no known type says nothing."""
    delta = event.delta or _SILENT
    match delta.type:
        case "text_delta":
            return (Text(0, delta.text),) if delta.text else ()
        case "thinking_delta":
            return tuple(_thought(event.index, delta.thinking or "", ""))
        case "signature_delta":
            return tuple(_thought(event.index, "", delta.signature or ""))
        case "input_json_delta":
            return (CallDelta(0, event.index, arguments=delta.partial_json or ""),)
        case _ if delta.partial_json:
            return (Unreadable("Arguments of a call came under another name"),)
        case _:
            return ()


def other_events(event: schema.StreamEvent, usage: schema.Usage | None) -> tuple[Event, ...]:
    """What an event of the whole message says; `usage` is what it adds up to so far."""
    match event.type:
        case "message_start":
            start = event.message or schema.Start()
            started = Started(start.id or "", start.model or "")
            usage = usage or start.usage
            return (started, usage_seen(usage)) if usage else (started,)
        case "message_delta":
            delta = event.delta or schema.Delta()
            events = ending(delta.stop_reason, delta.stop_sequence, delta.stop_details)
            return (*events, usage_seen(usage)) if usage else tuple(events)
        case "message_stop":
            return ENDED
        case _:
            return ()


def ending(reason: str | None, sequence: str | None, details: schema.StopDetails | None) -> list[Event]:
    """Why the message ended. The detail is the stop sequence that was met, or the kind of refusal."""
    if not reason:
        return []
    finish = _REASONS.get(reason, reason)
    if reason != "refusal" or details is None:
        return [Finished(0, finish, (sequence or "") if reason == "stop_sequence" else "")]
    words: list[Event] = [Refusal(0, details.explanation)] if details.explanation else []
    return [*words, Finished(0, finish, details.category or "")]


def unreadable(raw: bytes, why: str) -> Frame:
    return Frame(raw, (Unreadable(why),))


def _tool_events(index: int, block: schema.Block, raw: bytes) -> list[Event]:
    type_, name, id_ = block.type, block.name or "", block.id or ""
    if schema.is_call(type_):
        arguments = "{}" if isinstance(block.input, msgspec.UnsetType) else bytes(block.input).decode()
        return [CallDelta(0, index, id_, schema.call_name(name, block.toolset_name or ""), arguments)]
    if type_.endswith("tool_use"):
        return [ServerTool(0, index, schema.server_call_name(name, block.server_name or ""), id_, raw)]
    if type_.endswith("_tool_result"):
        return [ServerTool(0, index, type_, block.tool_use_id or "", raw)]
    return []


def _thought(index: int, words: str, signature: str) -> list[Event]:
    if not words and not signature:
        return []
    return [Reasoning(0, words, ReasoningKind.RAW, index, signature, format=ANTHROPIC_FORMAT)]


def _unusual(sse: SseFrame) -> Frame | schema.StreamEvent:
    """An error, a comment, an end marker of another dialect, or data with blanks before it."""
    data = sse.data.strip()
    if sse.event == "error":
        return Frame(sse.raw, (failed_event(data),))
    if data.startswith(b"{"):
        return parse_event(SseFrame(sse.raw, sse.event, data, sse.truncated))
    if sse.truncated:
        return unreadable(sse.raw, _CUT)
    if not data:
        return Frame(sse.raw, inert=True)
    if data == b"[DONE]":
        return Frame(sse.raw)
    return unreadable(sse.raw, "The event's data is not a JSON object")


def _mistrusted(sse: SseFrame, event: schema.StreamEvent) -> str:
    """Why an event could be read in another way than it was, or nothing."""
    if sse.truncated and event.type != "message_stop":
        return _CUT
    if sse.event and sse.event != event.type:
        return "The event's name and its type differ"
    plain = event.type == "content_block_delta" and _is_plain(sse.data, event)
    return "" if plain else _repeats(sse.data)


def _is_plain(data: bytes, event: schema.StreamEvent) -> bool:
    """Whether a delta can be read in one way only, found without parsing it again.

    No key is written with an escape, and those that tell what it is stand once: a quote inside a string is
    escaped, so that bytes in quotes are a key or a value of just that text.
    """
    if data.find(b"\\u") >= 0 and (len(data) > _SHORT or _ESCAPED_KEY.search(data)):
        return False
    if data.count(b'"type"') != _TYPES:
        return False
    delta = event.delta
    if delta is None or not delta.type:
        return False
    return delta.type != "input_json_delta" or (
        data.count(b'"partial_json"') == 1 and data.count(b'"index"') == 1 and data.count(b'"delta"') == 1
    )


def _repeats(document: bytes) -> str:
    """Which key stands twice in one object, in words; nothing where none does."""
    try:
        refuse_duplicates(document)
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""
