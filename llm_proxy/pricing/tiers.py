"""Service tiers: the words that vendors and callers have for them, brought to those of price tables."""

from __future__ import annotations

from collections.abc import Container, Iterable

from llm_proxy.pricing.names import BATCH, FAST, STANDARD
from llm_proxy.wire.lenient import string
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.tier import tier_word

AUTO = "auto"
"""The vendor chooses."""
_PLAIN = frozenset({"", "default", "standard", "standard_only", "on_demand", "scale"})
"""`scale` is paid for in advance, by the hour."""


def named(word: str) -> str:
    """A tier as it's recorded: nothing for the standard one, under whatever name."""
    return STANDARD if word == AUTO or word in _PLAIN else word


def known(word: str, tiers: Container[str]) -> str | None:
    """The tier of a price that `word` means; None where it has none of that name."""
    if word in _PLAIN:
        return STANDARD
    if word == "batch":
        return BATCH if BATCH in tiers else None
    if word == FAST and FAST not in tiers:
        word = "priority"  # OpenAI's other name for it
    return word if word in tiers else None


def reachable(asked: str, tiers: Iterable[str]) -> tuple[str, ...]:
    """The tiers that a call may be served in, the standard one always among them.

    What asks for none gets the standard one; what asks for one gets that, or the standard one where it's
    full. Where the vendor chooses (`auto`), or the word means nothing here, it may be any.
    """
    if asked in _PLAIN:
        return (STANDARD,)
    found = known(asked, tuple(tiers))
    return tuple(tiers) if found is None else tuple({STANDARD, found})


def asked_tier(request: WireRequest | None, dropped: Container[str] = ()) -> str:
    """The tier that a request asks for, in its own word: `service_tier`, or Anthropic's `speed`.

    `dropped`: keys that the target was not told.
    """
    if request is None:
        return ""
    for key in ("speed", "service_tier"):
        span = request.spans.get(key) if key not in dropped else None
        word = tier_word(string(request.body[slice(*span)])) if span is not None else ""
        if word not in _PLAIN:
            return word
    return ""
