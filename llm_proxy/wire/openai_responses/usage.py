"""OpenAI Responses, token counts."""

from __future__ import annotations

from llm_proxy.chat.events import Usage
from llm_proxy.wire.openai_responses import schema


def read_usage(usage: schema.Usage) -> Usage:
    """Counts as reported, zero included; absurd negatives are zero.

    Where the total is more than its parts, the rest is reasoning that the server left out of the output.
    """
    given = max(0, usage.input_tokens or 0)
    made = max(0, usage.output_tokens or 0)
    inputs = usage.input_tokens_details or schema.InputDetails()
    outputs = usage.output_tokens_details or schema.OutputDetails()
    apart = max(0, (usage.total_tokens or 0) - given - made)
    return Usage(
        input=given,
        output=made + apart,
        cached=max(0, inputs.cached_tokens or 0),
        cache_write=max(0, inputs.cache_write_tokens or 0),
        reasoning=max(0, outputs.reasoning_tokens or 0, apart),
    )
