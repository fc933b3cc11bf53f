"""Anthropic Messages, the sealed reasoning of one message, and what of the message has to go with it."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.dialect import Signed
from llm_proxy.wire.seal import unwrap
from llm_proxy.wire.spans import Span, array_spans, object_spans


class _Block(msgspec.Struct):
    type: str = ""
    signature: str | None = None
    data: str | None = None


_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_blocks = msgspec.json.Decoder(list[msgspec.Raw]).decode
_block = msgspec.json.Decoder(_Block).decode
_role = msgspec.json.Decoder(str).decode


def signed(raw: bytes) -> tuple[Signed, ...]:
    """The sealed thinking of an assistant's message, none for any other message.

    Each span takes one comma along, so that the message stays valid JSON whichever of them are removed. Where
    the message holds nothing but sealed thinking each span is the whole message, since one without content is
    refused. The seal of reasoning that another vendor gave, and that this dialect carried, is that vendor's.
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
    return tuple([Signed(_span(raw, spans, n, stays), seal) for n, seal in enumerate(seals) if seal])


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
            seal = block.signature or ""
        case "redacted_thinking":
            seal = block.data or ""
        case _:
            return ""
    carried = unwrap(seal)
    return (carried.signature or carried.text) if carried else seal
