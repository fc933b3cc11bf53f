"""OpenAI chat completions, a stream's held frames without the denied tool calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from llm_proxy.chat.events import Frame, Unreadable
from llm_proxy.wire.members import NULL, Members, given, items, members, to_array, to_object
from llm_proxy.wire.openai_chat import schema
from llm_proxy.wire.openai_chat.reply import FUNCTION_CALL_INDEX, call_index, read_frame
from llm_proxy.wire.sse import SseFrame, read_one, render

Denied = Mapping[tuple[int, int], str]
"""(choice, call index) of each denied call → the text that stands in its place."""

_LEAKS = ("logprobs", "token_ids")
"""Members of a choice that spell out a call's tokens."""
_ENVELOPE = ("id", "object", "created", "model", "system_fingerprint")

_call = msgspec.json.Decoder(schema.Call).decode
_int = msgspec.json.Decoder(int).decode
_encode = msgspec.json.Encoder().encode


def edit_frames(frames: Sequence[Frame], denied: Denied, spoken: Collection[int] = ()) -> list[bytes]:
    """What to send in place of the held frames of a stream.

    `frames` run from the first that has a tool call to the one that finishes. Allowed siblings of a denied
    call are renumbered from 0 in the order they began. Each note is one content delta before its choice's
    finish; in a choice of `spoken` (text went out before) it starts with an empty line. A frame left with
    nothing to say is not sent, nor is one that can't be read, since it may hold what was denied.
    """
    readable = [
        (frame, sse) for frame in frames if _is_readable(sse := read_one(frame.raw, means=bool(frame.events)))
    ]
    edit = _StreamEdit(denied, spoken)
    for _, sse in readable:
        edit.survey(sse)
    for frame, sse in readable:
        edit.add(frame, sse)
    return edit.finish()


def choice_index(choice: Members) -> int:
    return _int(choice["index"]) if "index" in choice else 0


def without_leaks(choice: Members) -> Members:
    return {key: value for key, value in choice.items() if key not in _LEAKS or value == NULL}


def without_call_finish(choice: Members) -> Members:
    """The choice as one that ended without a call, whatever else it ended for."""
    if choice.get("finish_reason") in (b'"tool_calls"', b'"function_call"'):
        return {**choice, "finish_reason": b'"stop"'}
    return choice


class _StreamEdit:
    """One reply's edit: `survey` every frame, then `add` every frame, then `finish`."""

    __slots__ = ("_calling", "_denied", "_envelope", "_hit", "_next", "_notes", "_numbers", "_out", "_spoken")

    def __init__(self, denied: Denied, spoken: Collection[int]) -> None:
        self._denied = denied
        self._spoken = set(spoken)
        self._hit: set[int] = set()
        """Choices in which a denied call was found."""
        self._calling: set[int] = set()
        """Choices in which a call stays."""
        self._next: dict[int, int] = {}
        """The index for the next call that stays, by choice."""
        self._numbers: dict[tuple[int, int], int | None] = {}
        """Each call's new index; None where it is denied."""
        self._notes: dict[int, list[str]] = {}
        """Notes still to be put out, by choice."""
        self._envelope: Members = {}
        self._out: list[bytes] = []

    def survey(self, sse: SseFrame) -> None:
        """Learn which calls stay, under which index, and which notes are due."""
        top = _chunk(sse)
        self._envelope = self._envelope or {key: top[key] for key in _ENVELOPE if key in top}
        for choice in _choices(top):
            delta = members(choice.get("delta", NULL))
            for index in _indexes(delta):
                self._see((choice_index(choice), index))

    def _see(self, key: tuple[int, int]) -> None:
        choice, index = key
        if key in self._numbers:
            return
        if key in self._denied:
            self._hit.add(choice)
            self._numbers[key] = None
            self._notes.setdefault(choice, []).append(self._denied[key])
            return
        self._calling.add(choice)
        if index == FUNCTION_CALL_INDEX:
            self._numbers[key] = index
        else:
            self._numbers[key] = self._next.get(choice, 0)
            self._next[choice] = self._next.get(choice, 0) + 1

    def add(self, frame: Frame, sse: SseFrame) -> None:
        """Put out what is left of one frame, after the notes of the choices that it finishes."""
        top = _chunk(sse)
        choices = _choices(top)
        for choice in choices:
            if given(choice, "finish_reason"):
                self._put_notes(choice_index(choice))
        if sse.data.lstrip().startswith(b"[DONE]"):
            self._put_all_notes()
        edited = [self._edit_choice(choice) for choice in choices]
        if edited == choices:
            self._out.append(frame.raw)
            return
        left = edited if given(top, "usage") else [choice for choice in edited if _says_something(choice)]
        if left:
            top["choices"] = to_array([to_object(choice) for choice in left])
            self._out.append(render(to_object(top), sse.event))

    def finish(self) -> list[bytes]:
        """Everything to send. The notes of choices that never finished come last."""
        self._put_all_notes()
        return self._out

    def _edit_choice(self, choice: Members) -> Members:
        number = choice_index(choice)
        if number not in self._hit:
            return choice
        edited = without_leaks(choice)
        if "delta" in edited:
            edited["delta"] = self._edit_delta(number, edited["delta"])
        return edited if number in self._calling else without_call_finish(edited)

    def _edit_delta(self, choice: int, raw: bytes) -> bytes:
        delta = members(raw)
        calls = items(delta.get("tool_calls", NULL))
        kept = [
            _numbered(item, number)
            for position, item in enumerate(calls)
            if (number := self._numbers[choice, call_index(position, _call(item))]) is not None
        ]
        no_function = given(delta, "function_call") and (choice, FUNCTION_CALL_INDEX) in self._denied
        if kept == calls and not no_function:
            return raw
        if no_function:
            del delta["function_call"]
        if kept:
            delta["tool_calls"] = to_array(kept)
        else:
            delta.pop("tool_calls", None)
        return to_object(delta)

    def _put_all_notes(self) -> None:
        for choice in sorted(self._notes):
            self._put_notes(choice)

    def _put_notes(self, choice: int) -> None:
        for note in self._notes.pop(choice, ()):
            text = "\n\n" + note if choice in self._spoken else note
            self._spoken.add(choice)
            delta = {"index": choice, "delta": {"content": text}, "finish_reason": None}
            self._out.append(render(to_object({**self._envelope, "choices": _encode([delta])})))


def _is_readable(sse: SseFrame) -> bool:
    return not any(isinstance(event, Unreadable) for event in read_frame(sse).events)


def _chunk(sse: SseFrame) -> Members:
    return members(sse.data) if sse.event != "error" and sse.data.lstrip().startswith(b"{") else {}


def _choices(top: Members) -> list[Members]:
    return [members(raw) for raw in items(top.get("choices", NULL))]


def _indexes(delta: Members) -> list[int]:
    calls = enumerate(items(delta.get("tool_calls", NULL)))
    indexes = [call_index(position, _call(raw)) for position, raw in calls]
    return [*indexes, FUNCTION_CALL_INDEX] if given(delta, "function_call") else indexes


def _says_something(choice: Members) -> bool:
    delta = members(choice.get("delta", NULL))
    return given(choice, "finish_reason") or any(value not in (NULL, b'""') for value in delta.values())


def _numbered(raw: bytes, number: int) -> bytes:
    """The call delta under its new index; one that has no index of its own stays without."""
    call = members(raw)
    new = b"%d" % number
    if not given(call, "index") or call["index"] == new:
        return raw
    return to_object({**call, "index": new})
