"""OpenAI chat completions, token counts: the servers' different books brought to one."""

from __future__ import annotations

from llm_proxy.chat.events import Usage, UsageSeen
from llm_proxy.wire.openai_chat import schema
from llm_proxy.wire.tier import tier_word
from llm_proxy.wire.tokens_told import told


def read_usage(usage: schema.Usage) -> Usage:
    """Counts as reported, zero included; absurd negatives are zero.

    Where the total is more than its parts, the rest is reasoning that the server left out of the completion
    (xAI and Gemini's compatible endpoint do).
    """
    prompt = max(0, usage.prompt_tokens or 0)
    completion = max(0, usage.completion_tokens or 0)
    return told(
        prompt,
        completion,
        usage.prompt_tokens_details,
        usage.completion_tokens_details,
        cached=usage.prompt_cache_hit_tokens,
        apart=max(0, (usage.total_tokens or 0) - prompt - completion),
    )


def usage_seen(usage: schema.Usage, tier: object, *, only: bool = False) -> UsageSeen:
    """The event; `tier` is the reply's `service_tier`, which litellm may put beside the counts."""
    return UsageSeen(read_usage(usage), only, tier_word(tier) or tier_word(usage.service_tier))
