"""Anthropic Messages, a stream read event by event with memory of the blocks before.

What an event means depends on earlier ones. Streamed arguments belong to the caller's call or to a tool of
the provider's, by the block that is open. Usage at the end may leave out what the start said. And SDKs find a
block by its place among the blocks that came, others by its number: where a call is concerned the two must be
one, or the call that an agent runs is not the one that was judged.
"""

from __future__ import annotations

from collections.abc import Callable

from llm_proxy.chat.events import CallDelta, Event, Frame, Unreadable
from llm_proxy.wire.anthropic_messages import schema
from llm_proxy.wire.anthropic_messages.reply import (
    delta_events,
    has_input,
    other_events,
    parse_event,
    start_block,
    start_events,
)
from llm_proxy.wire.anthropic_messages.usage import merged
from llm_proxy.wire.sse import SseFrame


class _Open:
    """A block that has not stopped."""

    __slots__ = ("argued", "call", "tool", "whole")

    def __init__(self, *, call: bool, whole: bool, tool: bool) -> None:
        self.call = call
        self.tool = tool
        """It's a call, or a tool's that the provider runs: pieces of arguments may follow."""
        self.whole = whole
        """It brought its arguments along when it started."""
        self.argued = whole


class Reader:
    """Reads one stream's frames in order. Every call is whole, at its place, and ahead of the end.

    `Unreadable` where an agent could read another call than is reported: a call or its arguments outside the
    message, out of place, or behind the end; a block twice at one place once a call has begun; pieces that
    carry no event name in a stream that names its events, or the other way round (SDKs skip those).
    """

    __slots__ = ("_astray", "_calling", "_ended", "_named", "_next", "_open", "_started", "_usage")

    def __init__(self) -> None:
        self._started = False
        self._named = False
        self._ended = False
        self._astray = False
        """A block started out of its place."""
        self._calling = False
        self._next = 0
        self._open: dict[int, _Open] = {}
        self._usage = schema.Usage()

    def read(self, sse: SseFrame) -> Frame:
        event = parse_event(sse)
        return event if isinstance(event, Frame) else Frame(sse.raw, self._events(event, sse))

    def _events(self, event: schema.StreamEvent, sse: SseFrame) -> tuple[Event, ...]:
        match event.type:
            case "content_block_delta":
                if event.delta is None or event.delta.type != "input_json_delta":
                    return delta_events(event)
                return self._argue(event, event.delta.partial_json or "", sse)
            case "content_block_start":
                return self._start(event, sse)
            case "content_block_stop":
                return self._stop(event.index)
            case "message_start":
                return self._begin(event, sse)
            case _:
                return self._other(event)

    def _begin(self, event: schema.StreamEvent, sse: SseFrame) -> tuple[Event, ...]:
        if self._started or self._next:
            return (Unreadable("A message started twice or behind its content"),)
        if event.message and event.message.content:
            return (Unreadable("The stream's message has content before it starts"),)
        self._started = True
        self._named = bool(sse.event)
        if event.message and event.message.usage:
            self._usage = merged(self._usage, event.message.usage)
        return other_events(event, None)

    def _start(self, event: schema.StreamEvent, sse: SseFrame) -> tuple[Event, ...]:
        block = start_block(event)
        if isinstance(block, Unreadable):
            return (block,)
        call = schema.is_call(block.type)
        index = event.index
        if index != self._next or bool(sse.event) != self._named or not self._started or self._ended:
            self._astray = True
        self._calling = self._calling or call
        if self._calling and self._astray:
            return (Unreadable("A tool call is not in its place in the message"),)
        self._next += 1
        self._open[index] = _Open(
            call=call, whole=call and has_input(block), tool=block.type.endswith("tool_use")
        )
        return start_events(index, block, event.content_block)

    def _argue(self, event: schema.StreamEvent, piece: str, sse: SseFrame) -> tuple[Event, ...]:
        block = self._open.get(event.index)
        if block is None or not block.tool:
            return (Unreadable("Arguments came for a tool call that is not open"),)
        if not block.call:
            return ()
        if bool(sse.event) != self._named:
            return (Unreadable("Only some of a call's events are named"),)
        if not piece:
            return (CallDelta(0, event.index),)
        if block.whole:
            return (Unreadable("A tool call has its arguments twice"),)
        block.argued = True
        return (CallDelta(0, event.index, arguments=piece),)

    def _stop(self, index: int) -> tuple[Event, ...]:
        block = self._open.pop(index, None)
        if block is None or not block.call or block.argued:
            return ()
        return (CallDelta(0, index, arguments="{}"),)

    def _other(self, event: schema.StreamEvent) -> tuple[Event, ...]:
        if event.usage:
            self._usage = merged(self._usage, event.usage)
        if event.type == "message_stop" or (event.delta and event.delta.stop_reason):
            self._ended = True
        return other_events(event, self._usage if event.usage else None)


def stream_reader() -> Callable[[SseFrame], Frame]:
    """What reads one stream's frames, in order."""
    return Reader().read
