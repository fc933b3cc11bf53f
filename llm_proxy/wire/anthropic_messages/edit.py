"""Anthropic Messages, a reply without its denied tool calls: one note stands where the first of them was.

Every byte outside the blocks that go and the stop reason stays as it came, signatures among them.
"""

from __future__ import annotations

import msgspec

from llm_proxy.wire.anthropic_messages import schema
from llm_proxy.wire.dialect import Denied
from llm_proxy.wire.spans import Edit, array_spans, object_spans, splice

_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_block = msgspec.json.Decoder(schema.Block).decode
_text = msgspec.json.Decoder(str | None).decode
_encode = msgspec.json.Encoder().encode

END_TURN = b'"end_turn"'


def edit_body(body: bytes, denied: Denied) -> bytes:
    """A whole reply without the denied calls; the same object where none of them is in it.

    A call's index is its block's place. Notes are one text block in the place of the first denied call, apart
    by an empty line. A reply that is left without a call ends its turn. `body` is one that `read_body` could
    read.
    """
    fields = _raws(body)
    blocks = _array(fields["content"])
    calls = [index for index, raw in enumerate(blocks) if schema.is_call(_block(raw).type)]
    gone = [index for index in calls if (0, index) in denied]
    if not gone:
        return body
    places = object_spans(body, fields, body.index(b"{"))
    spans = array_spans(body, places["content"][0], blocks)
    note = _encode({"type": "text", "text": note_of(denied, gone)})
    edits: list[Edit] = [(*spans[gone[0]], note)]
    edits += [(spans[index - 1][1], spans[index][1], b"") for index in gone[1:]]
    if len(gone) == len(calls) and ends_for_calls(fields.get("stop_reason")):
        edits.append((*places["stop_reason"], END_TURN))
    return splice(body, edits)


def note_of(denied: Denied, gone: list[int]) -> str:
    return "\n\n".join([denied[0, index] for index in gone])


def ends_for_calls(stop_reason: msgspec.Raw | None) -> bool:
    """Whether a message ended for its calls to be run."""
    return stop_reason is not None and _text(stop_reason) == "tool_use"
