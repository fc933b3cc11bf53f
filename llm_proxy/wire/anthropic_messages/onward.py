"""Anthropic Messages, a reply that goes on in a second one: streamed and whole."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.chat.reply import ToolCall
from llm_proxy.wire.adding_up import added_up
from llm_proxy.wire.anthropic_messages import schema
from llm_proxy.wire.anthropic_messages.edit_stream import note_frames
from llm_proxy.wire.anthropic_messages.retelling import HISTORY
from llm_proxy.wire.members import NULL, Members, given, items, members, to_array, to_object
from llm_proxy.wire.onward import Onwards, behind_last, frames_of
from llm_proxy.wire.sse import SseFrame, read_one, render

_block = msgspec.json.Decoder(schema.Block).decode
_int = msgspec.json.Decoder(int).decode
_text = msgspec.json.Decoder(str).decode


class MessagesOnward:
    """A stream behind another, its blocks numbered on from there."""

    __slots__ = ("_begun", "_first", "_named", "_started", "_usages", "id")

    def __init__(self, so_far: bytes, came: Sequence[bytes]) -> None:
        frames = frames_of(so_far)
        tops = [_event(sse) for sse in frames]
        self._named = any(sse.event for sse in frames)
        indexes = [_int(top["index"]) for top in tops if _type(top) == "content_block_start"]
        self._first = max(indexes, default=-1) + 1
        """The index of the next block."""
        starts = [members(top["message"]) for top in tops if _type(top) == "message_start"]
        self._begun = bool(starts)
        self.id = _text(starts[0]["id"]) if starts and given(starts[0], "id") else ""
        self._usages = [_usage([_event(sse) for sse in frames_of(stream)]) for stream in came]
        self._started: list[bytes] = []
        """What the further reply reports at its start."""

    def say(self, text: str) -> bytes:
        frames = note_frames(self._first, text, named=self._named)
        self._first += 1
        return b"".join(frames)

    def frame(self, raw: bytes) -> bytes:
        sse = read_one(raw)
        top = _event(sse)
        match _type(top):
            case "message_start" if self._begun:
                self._started = _usages(top)
                return b""
            case "message_start":
                self._begun = True
                self._started = _usages(top)
                return raw
            case "content_block_start" | "content_block_delta" | "content_block_stop":
                if not self._first:
                    return raw
                return render(
                    to_object({**top, "index": b"%d" % (_int(top["index"]) + self._first)}), sse.event
                )
            case "message_delta":
                own = _latest([*self._started, *_usages(top)])
                top["usage"] = added_up([*self._usages, own])
                return render(to_object(top), sse.event)
            case _:
                return raw


def joined(earlier: Sequence[bytes], last: bytes) -> bytes:
    """One message: the blocks of all but earlier calls, and everything else of the last one."""
    top = members(last)
    before = [members(body) for body in earlier]
    blocks = [raw for of in before for raw in items(of.get("content", NULL)) if not _is_call(raw)]
    top["content"] = to_array([*blocks, *items(top.get("content", NULL))])
    usages = [of["usage"] for of in (*before, top) if given(of, "usage")]
    if usages:
        top["usage"] = added_up(usages)
    return to_object(top)


def answers(call: ToolCall) -> bool:
    """Toolsets have their own form of calls."""
    return bool(call.id) and "." not in call.name


def _is_call(raw: bytes) -> bool:
    return schema.is_call(_block(raw).type)


def _event(sse: SseFrame) -> Members:
    return members(sse.data) if sse.event != "error" and sse.data.startswith(b"{") else {}


def _type(top: Members) -> str:
    return _text(top["type"]) if top.get("type", NULL).startswith(b'"') else ""


def _usages(top: Members) -> list[bytes]:
    """What an event reports, whether of the message so far or at its start."""
    of = members(top["message"]) if given(top, "message") else top
    return [of["usage"]] if given(of, "usage") else []


def _usage(tops: Sequence[Members]) -> bytes:
    """All that a stream reported in the end."""
    return _latest([usage for top in tops for usage in _usages(top)])


def _latest(usages: Sequence[bytes]) -> bytes:
    """Counts of a message grow: of each the last one stands."""
    latest: Members = {}
    for usage in usages:
        latest |= {key: value for key, value in members(usage).items() if value != NULL}
    return to_object(latest)


ONWARDS = Onwards(history=HISTORY, stream=MessagesOnward, body=joined, append=behind_last, answers=answers)
