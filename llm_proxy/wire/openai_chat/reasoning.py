"""OpenAI chat completions, the reasoning in a reply: every server's field for it, as typed pieces.

Servers repeat themselves: `reasoning` and `reasoning_content` hold one text, `reasoning_details` or
`thinking_blocks` beside them hold it again with its signature. Each text is read once, where most is said.
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import ANTHROPIC_FORMAT, GEMINI_FORMAT, Event, Reasoning, ReasoningKind
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.openai_chat import schema
from llm_proxy.wire.openai_chat.details import pieces

XAI_FORMAT = "xai-chat-v1"
"""Whose seal a message's `encrypted_content` is. (OpenRouter's `xai-responses-v1` comes in details.)"""

_extra = msgspec.json.Decoder(schema.Extra | None).decode


def add_reasoning(choice: int, message: schema.Message, events: list[Event]) -> None:
    """Append what a message, or a delta of one, holds of reasoning outside its content."""
    told = False
    if message.reasoning_details:
        told = _add_details(choice, message.reasoning_details, events)
    if message.thinking_blocks and not told:
        told = _add_blocks(choice, message.thinking_blocks, events)
    if not told and (plain := message.reasoning_content or message.reasoning):
        events.append(Reasoning(choice, plain))
    if data := message.encrypted_content:
        events.append(Reasoning(choice, data, ReasoningKind.ENCRYPTED, format=XAI_FORMAT))
    if message.extra_content is not msgspec.UNSET and (seal := thought_signature(message.extra_content)):
        events.append(Reasoning(choice, "", signature=seal, format=GEMINI_FORMAT))


def thought_signature(extra: msgspec.Raw | msgspec.UnsetType) -> str:
    """Gemini's `extra_content.google.thought_signature`; nothing where the value has another shape."""
    if isinstance(extra, msgspec.UnsetType):
        return ""
    try:
        found = _extra(extra)
    except CANNOT_READ:
        return ""
    return (found.google.thought_signature or "") if found and found.google else ""


def _add_details(choice: int, details: list[schema.Detail], events: list[Event]) -> bool:
    """Append the entries; whether any of them can be read. One without an index counts by its position."""
    told = False
    for position, detail in enumerate(details):
        part = position if detail.index is None else detail.index
        told = told or bool(detail.text or detail.summary)
        for piece in pieces(detail):
            events.append(
                Reasoning(choice, piece.text, piece.kind, part, piece.signature, piece.id, piece.format)
            )
    return told


def _add_blocks(choice: int, blocks: list[schema.ThinkingBlock], events: list[Event]) -> bool:
    """Append the blocks; whether any can be read. They carry no index: in a stream all are one part."""
    for part, block in enumerate(blocks):
        if block.thinking or block.signature:
            words, seal = block.thinking or "", block.signature or ""
            events.append(Reasoning(choice, words, ReasoningKind.RAW, part, seal, "", ANTHROPIC_FORMAT))
        if block.data:
            redacted = ReasoningKind.REDACTED
            events.append(Reasoning(choice, block.data, redacted, part, "", "", ANTHROPIC_FORMAT))
    return any(block.thinking for block in blocks)
