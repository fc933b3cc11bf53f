"""OpenAI Responses, a reply that goes on in a second one: streamed and whole."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.chat.reply import ToolCall
from llm_proxy.wire.adding_up import added_up
from llm_proxy.wire.members import NULL, Members, given, items, members, to_array, to_object
from llm_proxy.wire.onward import Onwards, frames_of
from llm_proxy.wire.openai_responses.continued import around
from llm_proxy.wire.openai_responses.edit_stream import call_of
from llm_proxy.wire.openai_responses.note import Note
from llm_proxy.wire.openai_responses.retelling import HISTORY
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import Edit
from llm_proxy.wire.sse import SseFrame, read_one, render

_BEGINNINGS = ("response.created", "response.in_progress", "response.queued")
_OTHER_CALLS = frozenset({"computer", "shell", "local_shell", "apply_patch", "tool_search"})
"""Calls whose results aren't plain text."""

_int = msgspec.json.Decoder(int).decode
_text = msgspec.json.Decoder(str).decode


class ResponsesOnward:
    """A stream behind another: items and events numbered on from there, one response in the end."""

    __slots__ = ("_created", "_first", "_items", "_sequence", "_usages", "id")

    def __init__(self, so_far: bytes, came: Sequence[bytes]) -> None:
        tops = [_event(sse) for sse in frames_of(so_far)]
        none: Members = {}
        begun = next((members(top["response"]) for top in tops if _type(top) in _BEGINNINGS), none)
        self.id = _text(begun["id"]) if given(begun, "id") else ""
        self._created = begun.get("created_at", NULL)
        numbers = [_int(top["sequence_number"]) for top in tops if given(top, "sequence_number")]
        self._sequence = max(numbers) + 1 if numbers else None
        """The number of the next event; None where the server numbers none, or nothing went out."""
        self._items = [top["item"] for top in tops if _type(top) == "response.output_item.done"]
        self._first = len(self._items)
        """The index of the next item."""
        self._usages = [usage for stream in came if (usage := _usage(stream))]

    def say(self, text: str) -> bytes:
        note = Note(f"{self.id}_{self._first}", [text])
        frames = note.frames(self._first, self._sequence)
        self._items.append(note.item())
        self._first += 1
        if self._sequence is not None:
            self._sequence += len(frames)
        return b"".join(frames)

    def frame(self, raw: bytes) -> bytes:
        sse = read_one(raw)
        top = _event(sse)
        if not top:
            return raw
        if self.id and _type(top) in _BEGINNINGS:
            return b""
        if given(top, "output_index"):
            top["output_index"] = b"%d" % (_int(top["output_index"]) + self._first)
        if self._sequence is not None and given(top, "sequence_number"):
            top["sequence_number"] = b"%d" % self._sequence
            self._sequence += 1
        if given(top, "response"):
            top["response"] = self._whole(members(top["response"]))
        return render(to_object(top), sse.event)

    def _whole(self, response: Members) -> bytes:
        if self.id:
            response["id"] = msgspec.json.encode(self.id)
            response["created_at"] = self._created
        response["output"] = to_array([*self._items, *items(response.get("output", NULL))])
        if given(response, "usage"):
            response["usage"] = added_up([*self._usages, response["usage"]])
        return to_object(response)


def joined(earlier: Sequence[bytes], last: bytes) -> bytes:
    """One response: the items of all but earlier calls, and everything else of the last one.

    The id is the last one's: at its vendor it holds the whole conversation.
    """
    top = members(last)
    before = [members(body) for body in earlier]
    said = [raw for of in before for raw in items(of.get("output", NULL)) if call_of(raw) is None]
    top["output"] = to_array([*said, *items(top.get("output", NULL))])
    usages = [of["usage"] for of in (*before, top) if given(of, "usage")]
    if usages:
        top["usage"] = added_up(usages)
    return to_object(top)


def append(request: WireRequest, messages: Sequence[bytes]) -> list[Edit]:
    return around(request, (), messages)


def answers(call: ToolCall) -> bool:
    """Functions and freeform tools; not what is named by its type, nor what would run at an MCP server."""
    if call.name in _OTHER_CALLS or call.id.startswith("mcpr_"):
        return False
    return bool(call.id) and f'"type":"{call.name}_call"' not in call.arguments


def _event(sse: SseFrame) -> Members:
    return members(sse.data) if sse.event != "error" and sse.data.lstrip().startswith(b"{") else {}


def _type(top: Members) -> str:
    return _text(top["type"]) if top.get("type", NULL).startswith(b'"') else ""


def _usage(stream: bytes) -> bytes:
    """What the final event reports."""
    for sse in reversed(frames_of(stream)):
        top = _event(sse)
        if given(top, "response"):
            return members(top["response"]).get("usage", b"").replace(NULL, b"")
    return b""


ONWARDS = Onwards(history=HISTORY, stream=ResponsesOnward, body=joined, append=append, answers=answers)
