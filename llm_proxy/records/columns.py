"""What a text column of the store can hold."""

from __future__ import annotations


def column(text: str, most: int = 256) -> str:
    """`text` as a text column holds it: at most `most` characters, and no NUL, which PostgreSQL refuses."""
    return text[:most].replace("\0", "\ufffd")
