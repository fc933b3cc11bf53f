"""OpenAI Responses, the reply: what a body or an event of a stream means.

What an event says of tool calls depends on the events before it: `Calls` is who knows those. `read_frame`
reads each frame by itself, `reader.Reader` a whole stream; why there are two is said there.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from llm_proxy.chat.events import (
    RESPONSES_FORMAT,
    CallDelta,
    Ended,
    Event,
    Failed,
    Finished,
    Frame,
    Reasoning,
    ReasoningKind,
    Refusal,
    ServerTool,
    Started,
    Text,
    Unreadable,
    UsageSeen,
)
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.openai_chat.failure import bare_failure, failed_event, failure
from llm_proxy.wire.openai_chat.frames import unreadable
from llm_proxy.wire.openai_responses import schema
from llm_proxy.wire.openai_responses.calls import (
    OutputCall,
    client_call,
    mentions_calls,
    server_tool,
    string,
    twins,
    writes_arguments,
)
from llm_proxy.wire.openai_responses.item import thoughts
from llm_proxy.wire.openai_responses.usage import read_usage
from llm_proxy.wire.sse import SseFrame
from llm_proxy.wire.tier import tier_word

UNPLACED = 1 << 32
"""Calls that a server sent without an output index get one from their id, above every real index."""

_head = msgspec.json.Decoder(schema.Head).decode
_string = msgspec.json.Decoder(str).decode
_carrier = msgspec.json.Decoder(schema.Carrier).decode
_written = msgspec.json.Decoder(schema.Written).decode
_response = msgspec.json.Decoder(schema.Response).decode
_called = msgspec.json.Decoder(schema.Called).decode
_message = msgspec.json.Decoder(schema.Message).decode
_thought = msgspec.json.Decoder(schema.Thought).decode

_REASON = {"max_output_tokens": "length", "max_tokens": "length", "content_filter": "content_filter"}
_TERMINAL = frozenset(
    {
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.cancelled",
        "response.done",
    }
)


class Place(NamedTuple):
    """Where an event says that its item stands: the output index if it gives one, and the item's ids."""

    at: int | None
    ids: tuple[str, ...]


class Item(NamedTuple):
    """One item of an output, with the call that it asks of the client."""

    raw: bytes
    called: schema.Called
    call: OutputCall | None


class Calls(Protocol):
    """Who makes events of what a stream says of its calls."""

    @property
    def silent(self) -> bool:
        """True where the stream is known to have said nothing before its final event."""
        ...

    @property
    def any(self) -> bool:
        """True where a call is known to have come."""
        ...

    def added(self, place: Place, item: Item) -> Sequence[Event]: ...

    def delta(self, place: Place, text: str, *, custom: bool) -> Sequence[Event]: ...

    def written(self, place: Place, text: str, name: str, *, custom: bool) -> Sequence[Event]: ...

    def done(self, place: Place, item: Item) -> Sequence[Event]: ...

    def final(self, output: Sequence[Item]) -> Sequence[Event]: ...


class _Unknowing:
    """Knows of no other event: names and arguments come from the events that bring them first."""

    silent = False
    any = False

    def added(self, place: Place, item: Item) -> Sequence[Event]:
        if item.call is None:
            return ()
        _, id_, name, arguments, custom = item.call
        said = arguments if writes_arguments(item.call) else ""
        return _placed(place, CallDelta(0, 0, id_, name, said, custom))

    def delta(self, place: Place, text: str, *, custom: bool) -> Sequence[Event]:
        return _placed(place, CallDelta(0, 0, "", "", text, custom))

    def written(self, place: Place, text: str, name: str, *, custom: bool) -> Sequence[Event]:
        return _placed(place, CallDelta(0, 0, "", "", "", custom))

    def done(self, place: Place, item: Item) -> Sequence[Event]:
        if item.call is None:
            return ()
        said = "" if writes_arguments(item.call) else item.call.arguments
        return _placed(place, CallDelta(0, 0, "", "", said, item.call.custom))

    def final(self, output: Sequence[Item]) -> Sequence[Event]:
        """A call that was never announced is at least seen, though without a name."""
        return [CallDelta(0, position) for position, item in enumerate(output) if item.call]


_UNKNOWING = _Unknowing()


def read_frame(sse: SseFrame) -> Frame:
    """One frame of a stream, by itself.

    A call's id and name are read from the event that adds it, its arguments from the deltas, and from the
    final item where they never come in deltas. Nothing is held against what other events said: calls that
    are to be judged are read by a `Reader`.
    """
    return read(sse, _UNKNOWING)


def read(sse: SseFrame, calls: Calls) -> Frame:
    """One frame of a stream. Comments and empty data mean nothing; what can't be parsed is `Unreadable`."""
    data = sse.data
    if sse.truncated or not data.startswith(b"{"):
        return _unusual(sse, calls)
    try:
        head = _head(data)
        if mentions_calls(data) and (why := _ambiguity(head, sse)):
            return Frame(sse.raw, (Unreadable(why),))
        if head.type == "response.output_text.delta":
            text = _string(head.delta)
            return Frame(sse.raw, (Text(0, text),) if text else ())
        return Frame(sse.raw, tuple(_read_event(head, sse, calls)))
    except CANNOT_READ as error:
        return unreadable(sse.raw, error)


def read_body(body: bytes) -> Frame:
    """A whole reply as one frame with all its events, `Ended` the last unless it failed or can't be read.

    A response that still runs in the background ends without being finished.
    """
    try:
        reply = _response(body)
        if reply.output is None and (failed := failure(reply.error) or bare_failure(body)):
            return Frame(body, (failed,))
        if reply.output is None and reply.status is None:
            return Frame(body, (Unreadable("The reply has no output"),))
        output = [_read_item(raw) for raw in reply.output or ()]
        calling = any(item.call for item in output)
        if (calling or mentions_calls(body)) and (why := twins(body)):
            return Frame(body, (Unreadable(why),))
        events: list[Event] = [Started(reply.id or "", reply.model or "")]
        for position, item in enumerate(output):
            _add_item(position, item, events)
        return Frame(body, (*events, *_ending(reply, calling=calling)))
    except CANNOT_READ as error:
        return unreadable(body, error)


def placed_by_id(place: Place) -> int | None:
    """An index for what an event is about: the one it gives, else one made of the first id it gives."""
    if place.at is not None:
        return place.at
    return UNPLACED + zlib.crc32(place.ids[0].encode()) if place.ids else None


def _ambiguity(head: schema.Head, sse: SseFrame) -> str:
    """Why a client could read the event in another way than it was read, or nothing."""
    if sse.event not in ("", "message", "error", head.type):
        return f"An event is named {sse.event!r} and says that it is {head.type!r}"
    return twins(sse.data)


def _placed(place: Place, delta: CallDelta) -> Sequence[Event]:
    index = placed_by_id(place)
    if index is None:
        return (Unreadable("An event does not say which tool call it is about"),)
    return (msgspec.structs.replace(delta, index=index),)


def _read_event(  # noqa: PLR0911  one answer for each kind of event
    head: schema.Head, sse: SseFrame, calls: Calls
) -> Sequence[Event]:
    match head.type:
        case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" as kind:
            return calls.delta(_place(head), string(head.delta), custom="custom" in kind)
        case "response.function_call_arguments.done" | "response.custom_tool_call_input.done" as kind:
            said = _written(sse.data)
            text = (said.input if "custom" in kind else said.arguments) or ""
            return calls.written(_place(head), text, said.name or "", custom="custom" in kind)
        case "response.reasoning_summary_text.delta":
            return _reasoning(head, string(head.delta), ReasoningKind.SUMMARY)
        case "response.reasoning_text.delta":
            return _reasoning(head, string(head.delta), ReasoningKind.RAW)
        case "response.reasoning_summary_part.added":
            return _reasoning(head, "\n\n" if head.summary_index else "", ReasoningKind.SUMMARY)
        case "response.refusal.delta":
            return [Refusal(0, text)] if (text := string(head.delta)) else ()
        case "response.output_item.added" | "response.output_item.done" as kind:
            return _item_event(kind, head, _carrier(sse.data), calls)
        case "error":
            return [failed_event(sse.data)]
        case kind if kind in _TERMINAL:
            return _final(_carrier(sse.data), calls)
        case kind:
            return _other(kind, sse)


def _place(head: schema.Head) -> Place:
    return Place(head.output_index, (head.item_id,) if head.item_id else ())


def _reasoning(head: schema.Head, text: str, kind: ReasoningKind) -> Sequence[Event]:
    return [Reasoning(0, text, kind, placed_by_id(_place(head)) or 0)] if text else ()


def _item_event(kind: str, head: schema.Head, event: schema.Carrier, calls: Calls) -> Sequence[Event]:
    item = _read_item(event.item)
    given = [item.called.id, head.item_id]
    if head.output_index is None:
        given.append(item.called.call_id)
    place = Place(head.output_index, tuple([id_ for id_ in given if id_]))
    if kind == "response.output_item.added":
        return calls.added(place, item)
    index = placed_by_id(place) or 0
    events = [*calls.done(place, item)]
    if item.called.type == "reasoning":
        events += _sealed(index, item.raw)
    elif name := server_tool(item.called):
        events.append(ServerTool(0, index, name, item.called.id or "", item.raw))
    return events


def _sealed(index: int, raw: bytes) -> list[Event]:
    """What only the finished reasoning item brings: its id, for words that came in deltas, and its seal."""
    return [
        Reasoning(
            0,
            part.text if part.kind is ReasoningKind.ENCRYPTED else "",
            part.kind,
            index,
            id=part.id,
            format=RESPONSES_FORMAT,
        )
        for part in thoughts(_thought(raw))
    ]


def _final(event: schema.Carrier, calls: Calls) -> Sequence[Event]:
    reply = event.response
    if reply is None:
        return [Unreadable("The final event has no response")]
    events: list[Event] = [Started(reply.id or "", reply.model or "")]
    output = [_read_item(raw) for raw in reply.output or ()]
    if calls.silent:
        for position, item in enumerate(output):
            if item.call is None:
                _add_item(position, item, events)
    events += calls.final(output)
    return [*events, *_ending(reply, calling=calls.any or any(item.call for item in output))]


def _ending(reply: schema.Response, *, calling: bool) -> Sequence[Event]:
    tier = tier_word(reply.service_tier)
    events: list[Event] = [UsageSeen(read_usage(reply.usage), tier=tier)] if reply.usage else []
    if failed := failure(reply.error) or (Failed(_unsaid(reply)) if reply.status == "failed" else None):
        return [*events, failed]
    if reply.status in ("queued", "in_progress"):
        return [*events, Ended()]
    details = reply.incomplete_details
    if reply.status == "incomplete":
        reason = (details and details.reason) or "length"
        finish = _REASON.get(reason, reason)
    elif reply.status == "cancelled":
        finish = "cancelled"
    else:
        finish = "tool_call" if calling else "stop"
    return [Finished(0, finish), *events, Ended()]


def _unsaid(reply: schema.Response) -> str:
    return f"The upstream reported a failed response {reply.id or ''}".rstrip()


def _other(kind: str | None, sse: SseFrame) -> Sequence[Event]:
    """An event that says nothing of the reply's content; none may hold a call."""
    if not (kind or "").startswith("response.") and b'"arguments"' in sse.data:
        return [Unreadable("A tool's arguments came in an event of no known type")]
    if kind != "response.created" and not mentions_calls(sse.data):
        return _unnamed(sse) if kind is None else ()
    event = _carrier(sse.data)
    items = [event.item, *((event.response and event.response.output) or ())]
    if any(_read_item(raw).call for raw in items if bytes(raw) != b"null"):
        return [Unreadable("The reply holds tool calls where none belong")]
    if kind == "response.created" and (reply := event.response):
        return [Started(reply.id or "", reply.model or "")]
    return _unnamed(sse) if kind is None else ()


def _unnamed(sse: SseFrame) -> Sequence[Event]:
    """Data without a type: an error as gateways put it into a stream, or nothing."""
    if sse.event == "error":
        return [failed_event(sse.data)]
    failed = failure(_carrier(sse.data).error) or bare_failure(sse.data)
    return [failed] if failed else ()


def _add_item(position: int, item: Item, events: list[Event]) -> None:
    called = item.called
    if item.call:
        _, id_, name, arguments, custom = item.call
        events.append(CallDelta(0, position, id_, name, arguments, custom))
    elif called.type == "message":
        content = _message(item.raw).content
        parts = [schema.Part(text=content)] if isinstance(content, str) else content or ()
        events += [Text(0, part.text) for part in parts if part.text]
        events += [Refusal(0, part.refusal) for part in parts if part.refusal]
    elif called.type == "reasoning":
        events += [
            Reasoning(0, part.text, part.kind, position, id=part.id, format=part.format)
            for part in thoughts(_thought(item.raw))
        ]
    elif name := server_tool(called):
        events.append(ServerTool(0, position, name, called.id or "", item.raw))


def _read_item(raw: msgspec.Raw) -> Item:
    data = bytes(raw)
    called = _called(data)
    return Item(data, called, client_call(called, data))


def _unusual(sse: SseFrame, calls: Calls) -> Frame:
    data = sse.data.strip()
    if sse.truncated and not data.startswith(b"[DONE]"):
        return Frame(sse.raw, (Unreadable("The stream was cut inside an event"),))
    if sse.event == "error":
        return Frame(sse.raw, (failed_event(data),))
    if not data:
        return Frame(sse.raw, inert=True)
    if data.startswith(b"[DONE]"):  # some servers add it; the end was the final event
        return Frame(sse.raw)
    if data.startswith(b"{"):
        return read(SseFrame(sse.raw, sse.event, data), calls)
    return Frame(sse.raw, (Unreadable("The event's data is not a JSON object"),))
