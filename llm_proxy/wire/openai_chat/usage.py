"""OpenAI chat completions, token counts: the servers' different books brought to one."""

from __future__ import annotations

from llm_proxy.chat.events import Usage
from llm_proxy.wire.openai_chat import schema


def read_usage(usage: schema.Usage) -> Usage:
    """Counts as reported, zero included; absurd negatives are zero.

    Where the total is more than its parts, the rest is reasoning that the server left out of the completion
    (xAI and Gemini's compatible endpoint do).
    """
    prompt = max(0, usage.prompt_tokens or 0)
    completion = max(0, usage.completion_tokens or 0)
    inputs = usage.prompt_tokens_details or schema.InputDetails()
    outputs = usage.completion_tokens_details or schema.OutputDetails()
    apart = max(0, (usage.total_tokens or 0) - prompt - completion)
    cached = inputs.cached_tokens if inputs.cached_tokens is not None else usage.prompt_cache_hit_tokens
    return Usage(
        input=prompt,
        output=completion + apart,
        cached=max(0, cached or 0),
        cache_write=max(0, inputs.cache_write_tokens or 0),
        reasoning=max(0, outputs.reasoning_tokens or 0, apart),
    )
