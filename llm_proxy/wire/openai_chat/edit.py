"""OpenAI chat completions, a reply without its denied tool calls: a note stands where each of them was.

Only the objects on the way to a denied call are written anew, with every other value's own bytes.
"""

from __future__ import annotations

import msgspec

from llm_proxy.wire.members import NULL, Members, given, items, members, to_array, to_object
from llm_proxy.wire.openai_chat.edit_stream import (
    Denied,
    choice_index,
    edit_frames,
    without_call_finish,
    without_leaks,
)
from llm_proxy.wire.openai_chat.reply import FUNCTION_CALL_INDEX

__all__ = ["Denied", "edit_body", "edit_frames"]

_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


def edit_body(body: bytes, denied: Denied) -> bytes:
    """A whole reply without the denied calls; the same object where none of them is in it.

    A call's index is its position. Notes follow the message's text, apart by an empty line. `body` is one
    that `read_body` could read.
    """
    top = members(body)
    choices = [members(raw) for raw in items(top.get("choices", NULL))]
    edited = [_edit_choice(choice, denied) for choice in choices]
    if edited == choices:
        return body
    top["choices"] = to_array([to_object(choice) for choice in edited])
    return to_object(top)


def _edit_choice(choice: Members, denied: Denied) -> Members:
    number = choice_index(choice)
    message = members(choice.get("message", NULL))
    calls = items(message.get("tool_calls", NULL))
    notes = [denied[number, index] for index in range(len(calls)) if (number, index) in denied]
    kept = [raw for index, raw in enumerate(calls) if (number, index) not in denied]
    if (number, FUNCTION_CALL_INDEX) in denied and given(message, "function_call"):
        notes.append(denied[number, FUNCTION_CALL_INDEX])
        del message["function_call"]
    if not notes:
        return choice
    if kept:
        message["tool_calls"] = to_array(kept)
    else:
        message.pop("tool_calls", None)
    message["content"] = _with_notes(message.get("content", NULL), notes)
    edited = {**without_leaks(choice), "message": to_object(message)}
    return edited if kept or given(message, "function_call") else without_call_finish(edited)


def _with_notes(content: bytes, notes: list[str]) -> bytes:
    if content.startswith(b"["):
        return to_array([*items(content), *(_encode({"type": "text", "text": note}) for note in notes)])
    text = "" if content == NULL else _text(content)
    return _encode("\n\n".join([text, *notes] if text else notes))
