"""Anthropic Messages, a reply written anew as one body."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from llm_proxy.chat.blocks import Block, CallBlock, Choice, ReasoningBlock, RefusalBlock, fold_blocks
from llm_proxy.chat.events import CallDelta, Event
from llm_proxy.wire.anthropic_messages import render_parts as parts
from llm_proxy.wire.anthropic_messages.call_input import input_object
from llm_proxy.wire.dialect import About


class _Text(msgspec.Struct, tag="text"):
    text: str


class _Thinking(msgspec.Struct, tag="thinking"):
    thinking: str
    signature: str


class _Redacted(msgspec.Struct, tag="redacted_thinking"):
    data: str


class _ToolUse(msgspec.Struct, tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw


_Content = _Text | _Thinking | _Redacted | _ToolUse


class _Message(msgspec.Struct, kw_only=True, tag="message"):
    id: str
    role: str = "assistant"
    model: str
    content: list[_Content]
    stop_reason: str
    stop_sequence: str | None
    usage: parts.WireUsage


_encode = msgspec.json.Encoder().encode


def render_body(events: Sequence[Event], about: About) -> bytes:
    """The whole reply. Calls stand behind everything else, as they do in a stream."""
    shown = parts.shown(events, thinking=parts.thinking_asked(about.request))
    calls = [event for event in shown if isinstance(event, CallDelta)]
    folded = fold_blocks([*(event for event in shown if not isinstance(event, CallDelta)), *calls])
    choice = folded.choices[0] if folded.choices else Choice(index=0, blocks=[])
    reply_id = parts.message_id(about.call_id)
    reason = parts.stop_reason(
        choice.finish,
        calls=bool(calls),
        refused=any(isinstance(block, RefusalBlock) for block in choice.blocks),
    )
    return _encode(
        _Message(
            id=reply_id,
            model=folded.model or about.model,
            content=list(_content(choice.blocks, reply_id)),
            stop_reason=reason,
            stop_sequence=choice.detail if reason == "stop_sequence" else None,
            usage=parts.wire_usage(folded.usage),
        )
    )


def _content(blocks: Iterable[Block], reply_id: str) -> Iterable[_Content]:
    for block in blocks:
        if isinstance(block, ReasoningBlock):
            yield from _reasoning(block)
        elif isinstance(block, CallBlock):
            id_ = parts.tool_id(block, reply_id)
            if data := parts.call_seal(block, id_):
                yield _Redacted(data)
            yield _ToolUse(id_, block.name, msgspec.Raw(input_object(block.arguments, custom=block.custom)))
        else:
            yield _Text(block.text)


def _reasoning(block: ReasoningBlock) -> Iterable[_Content]:
    words = parts.words_of(block.pieces)
    last = words[-1][0] if words else None
    seals = parts.seals(last, block.pieces, block.signature, block.id, block.format)
    for kind, text in words:
        yield _Thinking(text, seals.signature if kind is last else "")
    if seals.signature and not words:
        yield _Thinking("", seals.signature)
    for data in seals.redacted:
        yield _Redacted(data)
