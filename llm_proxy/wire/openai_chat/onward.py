"""OpenAI chat completions, a reply that goes on in a second one: streamed and whole."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.chat.events import Text
from llm_proxy.chat.reply import ToolCall
from llm_proxy.wire.adding_up import added_up
from llm_proxy.wire.members import NULL, Members, given, items, members, to_array, to_object
from llm_proxy.wire.onward import Onwards, behind_last, frames_of
from llm_proxy.wire.openai_chat.reply import read_frame
from llm_proxy.wire.openai_chat.retelling import HISTORY
from llm_proxy.wire.sse import SseFrame, read_one, render

_ENVELOPE = ("id", "object", "created", "model", "system_fingerprint")
_TEXTS = ("content", "reasoning_content", "reasoning")
"""Members of a message whose words follow each other, an empty line apart."""
_APART = "\n\n"

_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class ChatOnward:
    """A stream behind another. No call of that went out, so that the calls keep their indexes."""

    __slots__ = ("_begun", "_envelope", "_spoken", "_usages", "id")

    def __init__(self, so_far: bytes, came: Sequence[bytes]) -> None:
        self._begun = bool(so_far)
        self._spoken = False
        for sse in frames_of(so_far):
            texts = [event.text for event in read_frame(sse).events if isinstance(event, Text)]
            self._spoken = self._spoken or any(texts)
        chunks = [_chunk(sse) for sse in frames_of(came[0])]
        none: Members = {}
        first = next((chunk for chunk in chunks if "id" in chunk), none)
        self._envelope = {key: first[key] for key in _ENVELOPE if key in first}
        self._usages = [usage for stream in came if (usage := _usage(stream))]
        self.id = _text(first["id"]) if self._begun and first else ""

    def say(self, text: str) -> bytes:
        delta = {"content": text} if self._begun else {"role": "assistant", "content": text}
        if self._spoken:
            delta["content"] = _APART + text
        self._begun = self._spoken = True
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        return render(to_object({**self._envelope, "choices": _encode([choice])}))

    def frame(self, raw: bytes) -> bytes:
        sse = read_one(raw)
        top = _chunk(sse)
        if not top:
            return raw
        choices = [members(choice) for choice in items(top.get("choices", NULL))]
        edited = [self._edited(choice) for choice in choices]
        says = given(top, "usage") or any(map(_says, edited))
        if choices and not says and self._begun:
            return b""
        self._begun = True
        top |= {key: value for key, value in self._envelope.items() if key in top}
        top["choices"] = to_array([to_object(choice) for choice in edited])
        if given(top, "usage"):
            top["usage"] = added_up([*self._usages, top["usage"]])
        return render(to_object(top), sse.event)

    def _edited(self, choice: Members) -> Members:
        delta = members(choice.get("delta", NULL))
        if self._begun:
            delta.pop("role", None)
        content = delta.get("content", NULL)
        if self._spoken and content.startswith(b'"') and content != b'""':
            delta["content"] = _encode(_APART + _text(content))
            self._spoken = False
        return {**choice, "delta": to_object(delta)}


def joined(earlier: Sequence[bytes], last: bytes) -> bytes:
    """One completion: the words of all, and everything else of the last one."""
    top = members(last)
    before = [members(body) for body in earlier]
    choices = [members(raw) for raw in items(top.get("choices", NULL))]
    if choices:
        told = [_message(of) for of in before]
        message = members(choices[0].get("message", NULL))
        for key in _TEXTS:
            if words := _words([*told, message], key):
                message[key] = words
        details = [entry for of in (*told, message) for entry in items(of.get("reasoning_details", NULL))]
        if details:
            message["reasoning_details"] = to_array(details)
        choices[0]["message"] = to_object(message)
        top["choices"] = to_array([to_object(choice) for choice in choices])
    usages = [of["usage"] for of in (*before, top) if given(of, "usage")]
    if usages:
        top["usage"] = added_up(usages)
    return to_object(top)


def answers(call: ToolCall) -> bool:
    """All but the form before `tools`, whose results name no call."""
    return bool(call.id)


def _message(top: Members) -> Members:
    choices = items(top.get("choices", NULL))
    return members(members(choices[0]).get("message", NULL)) if choices else {}


def _words(messages: Sequence[Members], key: str) -> bytes:
    """The texts under `key`, an empty line apart; empty where none of them is one."""
    found = [message[key] for message in messages if message.get(key, NULL).startswith((b'"', b"["))]
    if any(raw.startswith(b"[") for raw in found):
        parts = [_encode({"type": "text", "text": _text(raw)}) for raw in found if raw.startswith(b'"')]
        lists = [part for raw in found if raw.startswith(b"[") for part in items(raw)]
        return to_array([*parts, *lists])
    texts = [text for raw in found if (text := _text(raw))]
    return _encode(_APART.join(texts)) if texts else b""


def _usage(stream: bytes) -> bytes:
    found = [chunk["usage"] for sse in frames_of(stream) if given(chunk := _chunk(sse), "usage")]
    return found[-1] if found else b""


def _chunk(sse: SseFrame) -> Members:
    return members(sse.data) if sse.event != "error" and sse.data.lstrip().startswith(b"{") else {}


def _says(choice: Members) -> bool:
    delta = members(choice.get("delta", NULL))
    return given(choice, "finish_reason") or any(value not in (NULL, b'""') for value in delta.values())


ONWARDS = Onwards(history=HISTORY, stream=ChatOnward, body=joined, append=behind_last, answers=answers)
