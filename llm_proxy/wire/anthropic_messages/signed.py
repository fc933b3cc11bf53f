"""Anthropic Messages, the sealed reasoning of one message, and what of the message has to go with it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.wire.dialect import Signed
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.seal import unwrap
from llm_proxy.wire.spans import Edit, Span, array_spans, object_spans


class _Block(msgspec.Struct):
    type: str = ""
    signature: str | None = None
    data: str | None = None


class _Kind(msgspec.Struct):
    type: str = ""


class _Said(msgspec.Struct):
    role: str
    content: str | list[_Kind]


_OFF = b'{"type":"disabled"}'

_said = msgspec.json.Decoder(_Said).decode
_kind = msgspec.json.Decoder(_Kind | None).decode
_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_blocks = msgspec.json.Decoder(list[msgspec.Raw]).decode
_block = msgspec.json.Decoder(_Block).decode
_role = msgspec.json.Decoder(str).decode


def signed(raw: bytes) -> tuple[Signed, ...]:
    """The sealed thinking of an assistant's message, none for any other message.

    Each span takes one comma along, so that the message stays valid JSON whichever of them are removed. Where
    the message holds nothing but sealed thinking each span is the whole message, since one without content is
    refused.
    """
    try:
        fields = _raws(raw)
        if _role(fields["role"]) != "assistant":
            return ()
        blocks = _blocks(fields["content"])
        seals = [_seal(block) for block in blocks]
        content, _ = object_spans(raw, fields)["content"]
        spans = array_spans(raw, content, blocks)
    except (KeyError, ValueError, RecursionError):  # an odd message is the upstream's to refuse
        return ()
    stays = next((n for n, seal in enumerate(seals) if not seal), None)
    return tuple([_signed(_span(raw, spans, n, stays), seal) for n, seal in enumerate(seals) if seal])


def unsealed(request: WireRequest, cut: Sequence[Edit]) -> list[Edit]:
    """Turns a thinking budget off where the thinking was cut out that has to stand before a tool's result.

    Anthropic refuses a budget where the assistant's turn that the conversation goes on with starts otherwise.
    Adaptive thinking needs none.
    """
    span = request.spans.get("thinking")
    try:
        asked = _kind(request.body[slice(*span)]) if span else None
        if span is None or asked is None or asked.type != "enabled":
            return []
        first = _open_turn(request)
    except (ValueError, RecursionError):
        return []
    if first is None:
        return []
    start, end = request.message_spans[first]
    return [(*span, _OFF)] if any(start <= at < end for at, _, _ in cut) else []


def _open_turn(request: WireRequest) -> int | None:
    """The first message of the assistant's turn that results of tools go on with; None where none do."""
    first = None
    for n in range(len(request.messages) - 1, -1, -1):
        said = _said(request.messages[n])
        if said.role == "assistant":
            first = n
        elif isinstance(said.content, str) or all(block.type != "tool_result" for block in said.content):
            break
    return None if first == len(request.messages) - 1 else first


def _signed(span: Span, seal: str) -> Signed:
    """The seal of reasoning that another vendor gave, and that this dialect carried, is that vendor's."""
    carried = unwrap(seal)
    return Signed(span, carried.signature or carried.text, True) if carried else Signed(span, seal)


def _span(raw: bytes, spans: tuple[Span, ...], n: int, stays: int | None) -> Span:
    """Up to the next block, or from the one before: always towards a block that stays."""
    if stays is None:
        return 0, len(raw)
    return (spans[n][0], spans[n + 1][0]) if n < stays else (spans[n - 1][1], spans[n][1])


def _seal(raw: msgspec.Raw) -> str:
    """What seals a block, empty where nothing does."""
    try:
        block = _block(raw)
    except msgspec.ValidationError:
        return ""
    match block.type:
        case "thinking":
            return block.signature or ""
        case "redacted_thinking":
            return block.data or ""
        case _:
            return ""
