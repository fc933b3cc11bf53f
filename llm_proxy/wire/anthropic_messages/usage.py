"""Anthropic Messages, token counts: the API's books brought to ours."""

from __future__ import annotations

from llm_proxy.chat.events import Usage, UsageSeen
from llm_proxy.wire.anthropic_messages import schema
from llm_proxy.wire.tier import tier_word
from llm_proxy.wire.tokens_told import hour_writes

_APART = frozenset({"compaction", "advisor_message"})
"""Samplings that are paid for and that the message's own counts leave out."""


def read_usage(usage: schema.Usage) -> Usage:
    """Counts with the cached and cache-written tokens, and the samplings apart; absurd negatives are zero."""
    apart = [item for item in usage.iterations or () if item.type in _APART]
    counted = [usage, *apart]
    cached = sum(_count(item.cache_read_input_tokens) for item in counted)
    written = sum(_count(item.cache_creation_input_tokens) for item in counted)
    details = usage.output_tokens_details or schema.OutputDetails()
    return Usage(
        input=sum(_count(item.input_tokens) for item in counted) + cached + written,
        output=sum(_count(item.output_tokens) for item in counted),
        cached=cached,
        cache_write=written,
        reasoning=_count(details.thinking_tokens),
        cache_write_hour=sum([hour_writes(item.cache_creation) for item in counted]),
    )


def usage_seen(usage: schema.Usage) -> UsageSeen:
    """The event. Fast mode is a tier of its own, since it's priced as one."""
    fast = tier_word(usage.speed) == "fast"
    return UsageSeen(read_usage(usage), tier="fast" if fast else tier_word(usage.service_tier))


def merged(before: schema.Usage, after: schema.Usage) -> schema.Usage:
    """Two reports of one stream, whose counts only grow. The later may leave out what the earlier said."""
    first = before.output_tokens_details or schema.OutputDetails()
    second = after.output_tokens_details or schema.OutputDetails()
    return schema.Usage(
        input_tokens=_larger(before.input_tokens, after.input_tokens),
        cache_creation_input_tokens=_larger(
            before.cache_creation_input_tokens, after.cache_creation_input_tokens
        ),
        cache_read_input_tokens=_larger(before.cache_read_input_tokens, after.cache_read_input_tokens),
        output_tokens=_larger(before.output_tokens, after.output_tokens),
        output_tokens_details=schema.OutputDetails(_larger(first.thinking_tokens, second.thinking_tokens)),
        iterations=before.iterations if after.iterations is None else after.iterations,
        cache_creation=max(before.cache_creation, after.cache_creation, key=hour_writes),
        service_tier=after.service_tier or before.service_tier,
        speed=after.speed or before.speed,
    )


def _larger(one: int | None, other: int | None) -> int:
    return max(_count(one), _count(other))


def _count(tokens: int | None) -> int:
    return max(0, tokens or 0)
