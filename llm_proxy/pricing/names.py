"""LiteLLM's names for what things cost.

A token's rate is named by its kind, then by the prompt's tokens above which it holds, then by the service
tier: `input_cost_per_token_above_200k_tokens_priority`. Pieces and sizes have one name each.
"""

from __future__ import annotations

import re
from typing import NamedTuple

KINDS = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_hour",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "input_cost_per_image_token": "image_input",
    "output_cost_per_image_token": "image_output",
    "cache_read_input_audio_token_cost": "cached_audio",
    "cache_read_input_image_token_cost": "cached_image",
}
"""Kinds of tokens, and the fields of `Rates` that hold their rates."""

PIECES = {
    "output_cost_per_image": "image",
    "input_cost_per_image": "image",
    "input_cost_per_character": "character",
    "input_cost_per_query": "query",
    "output_cost_per_second": "second",
    "output_cost_per_video_per_second": "second",
    "input_cost_per_second": "second",
}
"""What is priced by the piece. Of several names for one the first that isn't 0 counts."""

SIZES = ("max_input_tokens", "max_output_tokens", "max_tokens")

STANDARD = ""
BATCH = "batches"
FAST = "fast"
TIERS = (BATCH, "flex", "priority", "balanced", "ultrafast", "decisions", FAST)
"""Service tiers as they stand in names; the standard one has none."""

_KIND = "|".join(map(re.escape, sorted(KINDS, key=len, reverse=True)))
_NAME = re.compile(
    rf"(?P<kind>{_KIND})(?:_above_(?P<above>[0-9]{{1,9}})(?P<k>k?)_tokens)?(?:_(?P<tier>{'|'.join(TIERS)}))?"
)


class RateName(NamedTuple):
    """A token's rate: of which kind (a LiteLLM name), above how many tokens of prompt, in which tier."""

    kind: str
    above: int = 0
    tier: str = STANDARD


def token_rate(name: str) -> RateName | None:
    """What `name` is the rate of; None where it is no token's rate."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    above = int(found["above"] or 0) * (1_000 if found["k"] else 1)
    return RateName(found["kind"], above, found["tier"] or STANDARD)


def is_rate(name: str) -> bool:
    """Whether `name` says what something costs, be it a token or a piece."""
    return name in PIECES or token_rate(name) is not None
