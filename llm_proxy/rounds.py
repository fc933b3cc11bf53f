"""Replies whose calls were all denied, which the proxy answered itself before it asked the model again."""

from __future__ import annotations

import io
from dataclasses import dataclass

from llm_proxy.chat.blocks import Block, CallBlock, ReasoningBlock, RefusalBlock, TextBlock, fold_blocks
from llm_proxy.chat.events import Event, Reasoning, Usage
from llm_proxy.chat.prompt import (
    CallPart,
    Message,
    Part,
    RefusalPart,
    ResultPart,
    Role,
    TextPart,
    ThoughtPart,
)
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.dialect import Denied, Dialect

STRIDE = 1 << 20
"""The indexes of a round's calls begin at a multiple of this, so that no two calls of a call share one."""


@dataclass(frozen=True, slots=True)
class Round:
    """One such reply."""

    dialect: Dialect
    """What its target spoke."""
    emitted: io.BytesIO
    """All that came of it."""
    shown: tuple[Event, ...]
    """What it said as the agent is to see it, where it came as one body and is written anew."""
    turn: Message
    """The reply as the model's own turn."""
    results: Message
    """What the model was told of its calls."""
    id: str
    """Its own id for itself."""
    usage: Usage
    """What it came to, as reported or else as counted."""
    whole: bool
    """It came as one body."""
    spoke: bool
    """It had words for the caller."""
    parts: int
    """Above every part of reasoning in it."""


def parts_of(events: tuple[Event, ...]) -> int:
    """Above every part of reasoning among them."""
    return max([event.part + 1 for event in events if isinstance(event, Reasoning)], default=0)


def turn_of(events: tuple[Event, ...]) -> Message:
    """What a reply said, in order, as a turn of the assistant. One choice."""
    choices = fold_blocks(events).choices
    blocks = choices[0].blocks if choices else []
    return Message(role=Role.ASSISTANT, parts=tuple(part for block in blocks for part in _parts(block)))


def results_of(turn: Message, denied: Denied) -> Message:
    """A result for each call of the turn, in order: why it was denied."""
    notes = [note for _, note in sorted(denied.items())]
    calls = [part for part in turn.parts if isinstance(part, CallPart)]
    return Message(
        role=Role.USER,
        parts=tuple(
            ResultPart(call_id=call.id, parts=(TextPart(text=note),), custom=call.custom)
            for call, note in zip(calls, notes, strict=True)
        ),
    )


def _parts(block: Block) -> list[Part]:
    match block:
        case TextBlock(text=text):
            return [TextPart(text=text)] if text else []
        case RefusalBlock(text=text):
            return [RefusalPart(text=text)] if text else []
        case CallBlock():
            return [
                CallPart(
                    id=block.id,
                    name=block.name,
                    arguments=block.arguments,
                    custom=block.custom,
                    signature=block.signature,
                )
            ]
        case ReasoningBlock():
            return [
                ThoughtPart(
                    thought=ReasoningPart(
                        kind=kind,
                        text=text,
                        signature=block.signature if position == len(block.pieces) - 1 else "",
                        id=block.id,
                        format=block.format,
                    )
                )
                for position, (kind, text) in enumerate(block.pieces.items())
            ]
