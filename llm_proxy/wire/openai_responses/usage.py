"""OpenAI Responses, token counts."""

from __future__ import annotations

from llm_proxy.chat.events import Usage
from llm_proxy.wire.openai_responses import schema
from llm_proxy.wire.tokens_told import told


def read_usage(usage: schema.Usage) -> Usage:
    """Counts as reported, zero included; absurd negatives are zero.

    Where the total is more than its parts, the rest is reasoning that the server left out of the output.
    """
    given = max(0, usage.input_tokens or 0)
    made = max(0, usage.output_tokens or 0)
    apart = max(0, (usage.total_tokens or 0) - given - made)
    return told(given, made, usage.input_tokens_details, usage.output_tokens_details, apart=apart)
