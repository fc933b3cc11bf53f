"""OpenAI chat completions, a large reply read without its words: a text of 50 MB isn't made a second time.

Only for a reply that proposes no calls, and whose bytes pass as they are.
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import CallDelta, Frame, Unreadable
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.openai_chat.reply import read_body

_LONG = 1 << 16
_IN_ITS_PLACE = b'"..."'

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def skim_body(body: bytes) -> Frame | None:
    """The reply with a few characters in place of each long content; None where it has to be read in full."""
    if b"_call" in body:
        return None
    try:
        reply = _members(body)
        choices = [_members(raw) for raw in _items(reply["choices"])]
        for choice in choices:
            message = _members(choice["message"])
            content = memoryview(message["content"])
            if content.nbytes > _LONG and content[0] == ord('"'):
                message["content"] = msgspec.Raw(_IN_ITS_PLACE)
            choice["message"] = msgspec.Raw(_encode(message))
    except (*CANNOT_READ, KeyError):
        return None
    reply["choices"] = msgspec.Raw(_encode(choices))
    frame = read_body(_encode(reply))
    if any(isinstance(event, CallDelta | Unreadable) for event in frame.events):
        return None
    return Frame(body, frame.events)
