"""OpenAI Responses, a stream's held frames without the denied tool calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from llm_proxy.chat.events import CallDelta, Frame, Unreadable
from llm_proxy.wire.members import NULL, Members, given, items, members, to_array, to_object
from llm_proxy.wire.openai_responses import schema
from llm_proxy.wire.openai_responses.calls import OutputCall, client_call, matching
from llm_proxy.wire.openai_responses.note import Note
from llm_proxy.wire.sse import SseFrame, read_one, render

Denied = Mapping[tuple[int, int], str]
"""(choice, call index) of each denied call → the text that stands in its place. The choice is 0."""

_called = msgspec.json.Decoder(schema.Called).decode
_head = msgspec.json.Decoder(schema.Head).decode
_int = msgspec.json.Decoder(int).decode


def edit_frames(frames: Sequence[Frame], denied: Denied, spoken: Collection[int] = ()) -> list[bytes]:
    """What to send in place of the held frames of a stream.

    `frames` run from the first that has a tool call to the final event, none left out. The notes are one
    message in place of the first denied call, apart from what was `spoken` since it is an item of its own.
    Items behind it and the events' sequence get new numbers, without gaps; the final response says the same.
    A frame that can't be read is not sent, since it may hold what was denied.
    """
    readable = [
        (frame, read_one(frame.raw, means=bool(frame.events)))
        for frame in frames
        if not any(isinstance(event, Unreadable) for event in frame.events)
    ]
    edit = _StreamEdit(denied)
    for frame, sse in readable:
        edit.survey(frame, sse)
    for frame, sse in readable:
        edit.add(frame, sse)
    return edit.out


def _is_number(top: Members, key: str) -> bool:
    return top.get(key, NULL).isdigit()


def call_of(raw: bytes) -> OutputCall | None:
    """The call that an item of an output asks of the client."""
    return client_call(_called(raw), raw)


class _StreamEdit:
    """One reply's edit: `survey` every frame, then `add` every frame."""

    __slots__ = ("_call_ids", "_denied", "_first", "_hit", "_indexes", "_noted", "_sequence", "out")

    def __init__(self, denied: Denied) -> None:
        self._denied = denied
        self._call_ids: dict[int, str] = {}
        """Each call's id, by index."""
        self._indexes: dict[str, int] = {}
        """Each call's index by its item's ids, for events that give no index."""
        self._hit: list[int] = []
        """The denied calls that are there, in order."""
        self._first = 0
        self._sequence: int | None = None
        """The number of the next event; None where the server numbers none."""
        self._noted = False
        self.out: list[bytes] = []

    def survey(self, frame: Frame, sse: SseFrame) -> None:
        """Learn which calls there are, and the number that the first event has."""
        deltas = [event for event in frame.events if isinstance(event, CallDelta)]
        for delta in deltas:
            self._call_ids[delta.index] = self._call_ids.get(delta.index) or delta.id
            if (0, delta.index) in self._denied and delta.index not in self._hit:
                self._hit = sorted([*self._hit, delta.index])
                self._first = self._hit[0]
        if not sse.data.lstrip().startswith(b"{"):
            return
        top = members(sse.data)
        if self._sequence is None and _is_number(top, "sequence_number"):
            self._sequence = _int(top["sequence_number"])
        if len({delta.index for delta in deltas}) == 1 and not given(top, "response"):
            for id_ in _ids(top):
                self._indexes[id_] = deltas[0].index

    def add(self, frame: Frame, sse: SseFrame) -> None:
        """Put out what is left of one frame, after the note where it is due."""
        if not sse.data.lstrip().startswith(b"{"):
            self.out.append(frame.raw)
            return
        top = members(sse.data)
        index = self._index(top)
        final = given(top, "response")
        if self._hit and not self._noted and (index == self._first or final):
            self._put_note(placed=final or given(top, "output_index"))
        if index in self._hit:
            return
        changed = self._renumber(top, index)
        if final and self._hit:
            changed = self._edit_response(top) or changed
        self.out.append(render(to_object(top), sse.event) if changed else frame.raw)

    def _index(self, top: Members) -> int | None:
        if _is_number(top, "output_index"):
            return _int(top["output_index"])
        return next((self._indexes[id_] for id_ in _ids(top) if id_ in self._indexes), None)

    def _renumber(self, top: Members, index: int | None) -> bool:
        new: Members = {}
        if _is_number(top, "output_index") and index is not None:
            new["output_index"] = b"%d" % self._moved(index)
        if _is_number(top, "sequence_number") and self._sequence is not None:
            new["sequence_number"] = b"%d" % self._sequence
            self._sequence += 1
        changed = any(top[key] != value for key, value in new.items())
        top.update(new)
        return changed

    def _moved(self, index: int) -> int:
        gone = sum(1 for hit in self._hit if hit < index)
        return index - gone + 1 if gone else index

    def _put_note(self, *, placed: bool) -> None:
        self._noted = True
        frames = self._note().frames(self._first if placed else None, self._sequence)
        self.out += frames
        if self._sequence is not None:
            self._sequence += len(frames)

    def _note(self) -> Note:
        return Note(self._call_ids[self._first], [self._denied[0, index] for index in self._hit])

    def _edit_response(self, top: Members) -> bool:
        """Take the denied calls out of the final output; whether any was in it."""
        response = members(top["response"])
        output = items(response.get("output", NULL))
        gone = self._gone(output)
        if not gone:
            return False
        first = min(gone)
        response["output"] = to_array(
            [
                self._note().item() if position == first else raw
                for position, raw in enumerate(output)
                if position == first or position not in gone
            ]
        )
        top["response"] = to_object(response)
        return True

    def _gone(self, output: Sequence[bytes]) -> set[int]:
        """The positions of denied calls in a final output."""
        taken: set[int] = set()
        gone: set[int] = set()
        for position, raw in enumerate(output):
            call = call_of(raw)
            index = matching(position, call.id, self._call_ids, taken) if call else None
            if index is None:
                continue
            taken.add(index)
            if index in self._hit:
                gone.add(position)
        return gone


def _ids(top: Members) -> list[str]:
    """The ids by which an event names its item."""
    head = _head(to_object({key: top[key] for key in ("item_id",) if key in top}))
    item = _called(top["item"]) if given(top, "item") else schema.Called()
    return [id_ for id_ in (item.id, item.call_id, head.item_id) if id_]
