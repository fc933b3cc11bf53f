"""The service tier, read wherever a vendor or a caller says one."""

from __future__ import annotations

_LONGEST = 32


def tier_word(value: object) -> str:
    """A tier's name in lower case; empty for what is no name."""
    return value.strip().lower()[:_LONGEST] if isinstance(value, str) else ""
