"""OpenAI Responses: the conversation, kept at its vendor, that a request goes on with."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.request import WireRequest


class _Named(msgspec.Struct):
    id: str = ""


_decode = msgspec.json.Decoder(str | _Named | None).decode


def conversation_of(request: WireRequest) -> str:
    """Its id, which may stand in an object; empty where the request names none."""
    span = request.spans.get("conversation")
    if span is None:
        return ""
    try:
        named = _decode(request.body[slice(*span)])
    except CANNOT_READ:
        return ""
    return named.id if isinstance(named, _Named) else named or ""
