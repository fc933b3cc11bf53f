"""A reply's events as the ordered blocks that most dialects build a body from."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from llm_proxy.chat.events import (
    CallDelta,
    Event,
    Finished,
    Reasoning,
    ReasoningKind,
    Refusal,
    Started,
    Text,
    Usage,
    UsageSeen,
)


class TextBlock(msgspec.Struct, kw_only=True):
    text: str


class RefusalBlock(msgspec.Struct, kw_only=True):
    text: str


class ReasoningBlock(msgspec.Struct, kw_only=True):
    """All pieces of one part of reasoning, of every kind: words beside the seal that belongs to them."""

    part: int
    pieces: dict[ReasoningKind, str]
    signature: str = ""
    id: str = ""
    format: str = ""


class CallBlock(msgspec.Struct, kw_only=True):
    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    custom: bool = False
    signature: str = ""


Block = TextBlock | RefusalBlock | ReasoningBlock | CallBlock


class Choice(msgspec.Struct, kw_only=True):
    """One choice: its blocks in the order in which they began, and why it ended (neutral word)."""

    index: int
    blocks: list[Block]
    finish: str = ""
    detail: str = ""


class Folded(msgspec.Struct, kw_only=True):
    """A whole reply. `usage` is None where none was reported."""

    id: str = ""
    model: str = ""
    choices: list[Choice]
    usage: Usage | None = None


def fold_blocks(events: Iterable[Event]) -> Folded:
    """Blocks in order: text that follows text is one block; calls and reasoning go by index and part."""
    folded = Folded(choices=[])
    choices: dict[int, Choice] = {}
    for event in events:
        match event:
            case Started(id_, model):
                folded.id, folded.model = folded.id or id_, folded.model or model
            case UsageSeen(usage):
                folded.usage = usage
            case Finished(choice, reason, detail):
                of = _choice(choices, choice)
                of.finish, of.detail = reason, detail
            case Text() | Refusal() | Reasoning() | CallDelta():
                _add(_choice(choices, event.choice).blocks, event)
            case _:
                pass
    folded.choices = [choice for _, choice in sorted(choices.items())]
    return folded


def _choice(choices: dict[int, Choice], index: int) -> Choice:
    choice = choices.get(index)
    if choice is None:
        choice = choices[index] = Choice(index=index, blocks=[])
    return choice


def _add(blocks: list[Block], event: Text | Refusal | Reasoning | CallDelta) -> None:
    last = blocks[-1] if blocks else None
    match event:
        case Text(_, text):
            if isinstance(last, TextBlock):
                last.text += text
            else:
                blocks.append(TextBlock(text=text))
        case Refusal(_, text):
            if isinstance(last, RefusalBlock):
                last.text += text
            else:
                blocks.append(RefusalBlock(text=text))
        case Reasoning():
            _add_reasoning(blocks, event)
        case CallDelta():
            _add_call(blocks, event)


def _add_reasoning(blocks: list[Block], piece: Reasoning) -> None:
    block = next((b for b in blocks if isinstance(b, ReasoningBlock) and b.part == piece.part), None)
    if block is None:
        block = ReasoningBlock(part=piece.part, pieces={})
        blocks.append(block)
    block.pieces[piece.kind] = block.pieces.get(piece.kind, "") + piece.text
    block.signature += piece.signature
    block.id = block.id or piece.id
    block.format = block.format or piece.format


def _add_call(blocks: list[Block], delta: CallDelta) -> None:
    block = next((b for b in blocks if isinstance(b, CallBlock) and b.index == delta.index), None)
    if block is None:
        block = CallBlock(index=delta.index)
        blocks.append(block)
    block.id = block.id or delta.id
    block.name += delta.name
    block.arguments += delta.arguments
    block.custom = block.custom or delta.custom
    block.signature = block.signature or delta.signature
