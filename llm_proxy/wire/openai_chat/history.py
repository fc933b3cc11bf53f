"""OpenAI chat completions, the reasoning that an assistant's message brings back, in any server's field.

Comes from a caller who may send anything: a value of an unexpected shape is not reasoning, and no error. The
same text often stands in several fields; it is read once, where most is said of it.
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import ANTHROPIC_FORMAT, GEMINI_FORMAT, ReasoningKind
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.lenient import NONE, array, lenient, string
from llm_proxy.wire.openai_chat import schema
from llm_proxy.wire.openai_chat.details import OPAQUE, pieces
from llm_proxy.wire.openai_chat.reasoning import XAI_FORMAT, thought_signature


class Reasoned(msgspec.Struct):
    """The fields of a message that may hold reasoning, each raw."""

    content: msgspec.Raw = NONE
    reasoning_content: msgspec.Raw = NONE
    reasoning: msgspec.Raw = NONE
    reasoning_details: msgspec.Raw = NONE
    thinking_blocks: msgspec.Raw = NONE
    encrypted_content: msgspec.Raw = NONE
    extra_content: msgspec.Raw = NONE


_reasoned = lenient(Reasoned)
_detail = lenient(schema.Detail)
_block = lenient(schema.ThinkingBlock)
_part = lenient(schema.Part)


def reasoning_of(raw: bytes) -> tuple[ReasoningPart, ...]:
    """The reasoning in a message, given its own bytes; nothing where they are no object."""
    if b"reasoning" not in raw and b"think" not in raw and b"_content" not in raw:
        return ()
    message = _reasoned(raw)
    return read_reasoned(message) if message else ()


def read_reasoned(message: Reasoned) -> tuple[ReasoningPart, ...]:
    """The reasoning in a message's fields, in typed parts, the sealed ones with what seals them."""
    parts = _details(message.reasoning_details)
    if not _told(parts):
        parts += _blocks(message.thinking_blocks)
    if not _told(parts):
        plain = string(message.reasoning_content) or string(message.reasoning)
        words = [plain] if plain else _thinking(message.content)
        parts = [ReasoningPart(kind=ReasoningKind.RAW, text=text) for text in words] + parts
    if data := string(message.encrypted_content):
        parts.append(ReasoningPart(kind=ReasoningKind.ENCRYPTED, text=data, format=XAI_FORMAT))
    if seal := thought_signature(message.extra_content):
        parts.append(ReasoningPart(kind=ReasoningKind.RAW, signature=seal, format=GEMINI_FORMAT))
    return tuple(parts)


def _told(parts: list[ReasoningPart]) -> bool:
    return any(part.text for part in parts if part.kind not in OPAQUE)


def _details(raw: msgspec.Raw) -> list[ReasoningPart]:
    """The entries in order, a stream's pieces of one put together (clients send them back either way).

    Words go on in the entry of their index and kind, until it is signed or one of another id comes.
    """
    parts: list[ReasoningPart] = []
    open_: dict[tuple[int, ReasoningKind], int] = {}
    for detail in filter(None, map(_detail, array(raw) or ())):
        for piece in pieces(detail):
            key = None if detail.index is None or piece.kind in OPAQUE else (detail.index, piece.kind)
            at = open_.get(key) if key else None
            if at is not None and _goes_on(parts[at], piece):
                parts[at] = _joined(parts[at], piece)
            else:
                at = len(parts)
                parts.append(piece)
            if key:
                open_[key] = at
    return parts


def _goes_on(part: ReasoningPart, piece: ReasoningPart) -> bool:
    return not part.signature and (not piece.id or not part.id or piece.id == part.id)


def _joined(part: ReasoningPart, piece: ReasoningPart) -> ReasoningPart:
    return ReasoningPart(
        kind=part.kind,
        text=part.text + piece.text,
        signature=piece.signature,
        id=part.id or piece.id,
        format=part.format or piece.format,
    )


def _blocks(raw: msgspec.Raw) -> list[ReasoningPart]:
    """LiteLLM's `thinking_blocks`, which are Anthropic's."""
    parts: list[ReasoningPart] = []
    for block in filter(None, map(_block, array(raw) or ())):
        if block.thinking or block.signature:
            parts.append(
                ReasoningPart(
                    kind=ReasoningKind.RAW,
                    text=block.thinking or "",
                    signature=block.signature or "",
                    format=ANTHROPIC_FORMAT,
                )
            )
        if block.data:
            kind = ReasoningKind.REDACTED
            parts.append(ReasoningPart(kind=kind, text=block.data, format=ANTHROPIC_FORMAT))
    return parts


def _thinking(content: msgspec.Raw) -> list[str]:
    """Mistral's `thinking` parts of a content array."""
    found = [part.thinking for part in map(_part, array(content) or ()) if part and part.thinking]
    return [
        thinking if isinstance(thinking, str) else "".join([part.text or "" for part in thinking])
        for thinking in found
    ]
