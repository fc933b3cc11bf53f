"""OpenAI chat completions, a whole reply written anew from events."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.chat.blocks import CallBlock, Choice, ReasoningBlock, RefusalBlock, TextBlock, fold_blocks
from llm_proxy.chat.events import Event
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.dialect import About
from llm_proxy.wire.openai_chat.details import OPAQUE, Entry, entry, sealed
from llm_proxy.wire.openai_chat.reply_parts import (
    Caller,
    call_id,
    caller_of,
    completion_id,
    finish_reason,
    freeform_input,
    usage_of,
)

_encode = msgspec.json.Encoder().encode


def render_body(events: Sequence[Event], about: About) -> bytes:
    """The completion: what the stream of the same events adds up to."""
    folded = fold_blocks(events)
    caller = caller_of(about.request)
    choices = folded.choices or [Choice(index=0, blocks=[])]
    body: dict[str, object] = {
        "id": completion_id(about.call_id),
        "object": "chat.completion",
        "created": about.created,
        "model": folded.model or about.model,
        "choices": [_choice(choice, about, caller) for choice in choices],
    }
    if folded.usage:
        body["usage"] = usage_of(folded.usage)
    return _encode(body)


def _choice(choice: Choice, about: About, caller: Caller) -> dict[str, object]:
    texts = [block.text for block in choice.blocks if isinstance(block, TextBlock)]
    refusals = [block.text for block in choice.blocks if isinstance(block, RefusalBlock)]
    thoughts = [block for block in choice.blocks if isinstance(block, ReasoningBlock)]
    calls = [block for block in choice.blocks if isinstance(block, CallBlock)]
    message: dict[str, object] = {
        "role": "assistant",
        "content": "".join(texts) if texts else None,
        "refusal": "".join(refusals) if refusals else None,
    }
    words = "".join([text for block in thoughts for kind, text in block.pieces.items() if kind not in OPAQUE])
    if words:
        message["reasoning_content"] = words
    if details := [written for block in thoughts for written in _details(block)]:
        message["reasoning_details"] = details
    if calls and caller.legacy:
        message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
    elif calls:
        message["tool_calls"] = [_call(index, call, about, caller) for index, call in enumerate(calls)]
    reason = finish_reason(choice.finish, caller, calling=bool(calls), refused=bool(refusals))
    return {"index": choice.index, "message": message, "logprobs": None, "finish_reason": reason}


def _details(block: ReasoningBlock) -> list[Entry]:
    """The block's pieces as entries, where its vendor wants it back."""
    entries: list[Entry] = []
    signature = block.signature
    for kind, text in block.pieces.items():
        proof = "" if kind in OPAQUE else signature
        part = ReasoningPart(kind=kind, text=text, signature=proof, id=block.id, format=block.format)
        if block.format or sealed(part):
            entries.append(entry(part, block.part))
        signature = signature if kind in OPAQUE else ""
    return entries


def _call(index: int, call: CallBlock, about: About, caller: Caller) -> dict[str, object]:
    out: dict[str, object] = {"id": call.id or call_id(about.call_id, index)}
    if call.custom or call.name in caller.custom_tools:
        return out | freeform_input(call.name, call.arguments, caller, custom=call.custom)
    out |= {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    if call.signature:
        out["extra_content"] = {"google": {"thought_signature": call.signature}}
    return out
