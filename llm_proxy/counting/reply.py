"""Counting what a model said, where its server did not."""

from __future__ import annotations

from llm_proxy.chat.reply import OPAQUE, Reply
from llm_proxy.counting.prompt import PER_SEAL
from llm_proxy.counting.text import TokenCounter
from llm_proxy.counting.tokenizers import Tokenizer


async def reply_tokens(reply: Reply, texts: TokenCounter, way: Tokenizer) -> int:
    """Tokens of every word of a reply, reasoning and tool calls included; what is sealed by its length."""
    words: list[str] = []
    sealed = 0
    for choice in reply.choices:
        words += (choice.text, choice.refusal)
        for part in choice.reasoning:
            if part.kind in OPAQUE:
                sealed += len(part.text)
            else:
                words.append(part.text)
        for call in choice.calls:
            words += (call.name, call.arguments)
    said = tuple([text for text in words if text])
    return -(-sealed // PER_SEAL) + (await texts.count(said, way.encoding) if said else 0)
