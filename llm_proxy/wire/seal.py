"""How a seal (a signature, encrypted reasoning) travels in a dialect that is not the one it was made in.

An agent sends back what it was given, so a seal put where its dialect keeps opaque data returns unchanged.
The envelope is `llmp1.` and base64url of a JSON array (id, format, kind, data, words), so that a seal of the
dialect's own is told from one that was carried.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from llm_proxy.chat.events import ReasoningKind
from llm_proxy.chat.reply import ReasoningPart

MARK = "llmp1."


class _Carried(msgspec.Struct, frozen=True, array_like=True):
    id: str
    format: str
    kind: ReasoningKind
    text: str
    signature: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Carried).decode


def wrap(part: ReasoningPart) -> str:
    """The part as opaque text, its words included."""
    carried = _Carried(part.id, part.format, part.kind, part.text, part.signature)
    return MARK + base64.urlsafe_b64encode(_encode(carried)).decode().rstrip("=")


def unwrap(data: str) -> ReasoningPart | None:
    """The part that `wrap` made opaque; None for anything else, a damaged envelope included."""
    if not data.startswith(MARK):
        return None
    packed = data[len(MARK) :]
    try:
        raw = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
        found = _decode(raw)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None
    return ReasoningPart(
        kind=found.kind, text=found.text, signature=found.signature, id=found.id, format=found.format
    )
