"""Anthropic Messages, a stream's held frames without the denied tool calls."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from llm_proxy.chat.events import Frame, Unreadable
from llm_proxy.wire.anthropic_messages import schema
from llm_proxy.wire.anthropic_messages.edit import END_TURN, ends_for_calls, note_of
from llm_proxy.wire.anthropic_messages.reply import parse_event, read_frame, start_block
from llm_proxy.wire.dialect import Denied
from llm_proxy.wire.members import members, to_object
from llm_proxy.wire.sse import SseFrame, read_one, render

_encode = msgspec.json.Encoder().encode


def edit_frames(frames: Sequence[Frame], denied: Denied, spoken: Collection[int] = ()) -> list[bytes]:
    """What to send in place of the held frames of a stream.

    `frames` run from the start of the first call's block to the end of the message. The notes are one text
    block in the place of the first denied call, apart by an empty line; it follows text that went out before
    (`spoken`) as a block of its own. The blocks behind are renumbered, so that none is missing. A message
    that is left without a call ends its turn. A frame that can't be read is not sent, since it may hold what
    was denied.
    """
    readable = [
        (frame, sse) for frame in frames if _is_readable(sse := read_one(frame.raw, means=bool(frame.events)))
    ]
    edit = _StreamEdit(denied)
    for _, sse in readable:
        edit.survey(sse)
    for frame, sse in readable:
        edit.add(frame, sse)
    return edit.out


class _StreamEdit:
    """One message's edit: `survey` every frame, then `add` every frame."""

    __slots__ = ("_calling", "_denied", "_gone", "_next", "_note_at", "_numbers", "out")

    def __init__(self, denied: Denied) -> None:
        self._denied = denied
        self._calling = False
        """A call stays."""
        self._gone: list[int] = []
        self._note_at = 0
        self._next: int | None = None
        """The index for the next block that stays."""
        self._numbers: dict[int, int | None] = {}
        """Each block's new index; None where it is denied."""
        self.out: list[bytes] = []

    def survey(self, sse: SseFrame) -> None:
        """Learn which blocks stay, under which index, and where the notes go."""
        event = parse_event(sse)
        if isinstance(event, Frame) or event.type != "content_block_start":
            return
        block = start_block(event)
        if isinstance(block, Unreadable):
            return
        index = event.index
        number = index if self._next is None else self._next
        call = schema.is_call(block.type)
        if call and (0, index) in self._denied:
            self._numbers[index] = None
            if not self._gone:
                self._note_at = number
                number += 1
            self._gone.append(index)
        else:
            self._calling = self._calling or call
            self._numbers[index] = number
            number += 1
        self._next = number

    def add(self, frame: Frame, sse: SseFrame) -> None:
        """Put out what is left of one frame, or the notes in its place."""
        event = parse_event(sse)
        if not self._gone or isinstance(event, Frame):
            self.out.append(frame.raw)
        elif event.type.startswith("content_block_"):
            self._add_of_block(frame, sse, event)
        elif event.type == "message_delta" and not self._calling:
            self.out.append(_ending_turn(frame, sse))
        else:
            self.out.append(frame.raw)

    def _add_of_block(self, frame: Frame, sse: SseFrame, event: schema.StreamEvent) -> None:
        number = self._numbers.get(event.index, event.index)
        if number == event.index:
            self.out.append(frame.raw)
        elif number is not None:
            self.out.append(render(to_object({**members(sse.data), "index": b"%d" % number}), sse.event))
        elif event.index == self._gone[0] and event.type == "content_block_start":
            self.out += note_frames(self._note_at, note_of(self._denied, self._gone), named=bool(sse.event))


def _is_readable(sse: SseFrame) -> bool:
    return not any(isinstance(event, Unreadable) for event in read_frame(sse).events)


def _ending_turn(frame: Frame, sse: SseFrame) -> bytes:
    top = members(sse.data)
    delta = members(top["delta"]) if "delta" in top else {}
    if not ends_for_calls(msgspec.Raw(delta.get("stop_reason", b"null"))):
        return frame.raw
    top["delta"] = to_object({**delta, "stop_reason": END_TURN})
    return render(to_object(top), sse.event)


def note_frames(index: int, note: str, *, named: bool) -> list[bytes]:
    return [
        render(_encode({"type": type_, "index": index, **more}), type_ if named else "")
        for type_, more in (
            ("content_block_start", {"content_block": {"type": "text", "text": ""}}),
            ("content_block_delta", {"delta": {"type": "text_delta", "text": note}}),
            ("content_block_stop", {}),
        )
    ]
