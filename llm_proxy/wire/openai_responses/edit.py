"""OpenAI Responses, a reply without its denied tool calls: one message says in their place why.

Only the objects on the way to a denied call are written anew, with every other value's own bytes.
"""

from __future__ import annotations

from llm_proxy.wire.members import NULL, items, members, to_array, to_object
from llm_proxy.wire.openai_responses.edit_stream import Denied, call_of, edit_frames
from llm_proxy.wire.openai_responses.note import Note

__all__ = ["Denied", "edit_body", "edit_frames"]


def edit_body(body: bytes, denied: Denied) -> bytes:
    """A whole reply without the denied calls; the same object where none of them is in it.

    A call's index is its position. The notes are one message in place of the first. `body` is one that
    `read_body` could read.
    """
    top = members(body)
    output = items(top.get("output", NULL))
    found = {
        position: call
        for position, raw in enumerate(output)
        if (0, position) in denied and (call := call_of(raw))
    }
    if not found:
        return body
    first = min(found)
    note = Note(found[first].id, [denied[0, position] for position in sorted(found)])
    top["output"] = to_array(
        [
            note.item() if position == first else raw
            for position, raw in enumerate(output)
            if position == first or position not in found
        ]
    )
    return to_object(top)
