"""Tool-name globs: `*` stands for any run of characters, everything else for itself."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1024)
def _pieces(pattern: str) -> tuple[str, ...]:
    return tuple(pattern.split("*"))


def matches(pattern: str, name: str) -> bool:
    """Whether `name` fits `pattern`; linear in their lengths, no case folding."""
    head, *rest = _pieces(pattern)
    if not rest:
        return pattern == name
    *middle, tail = rest
    if len(name) < len(head) + len(tail) or not name.startswith(head) or not name.endswith(tail):
        return False
    at, end = len(head), len(name) - len(tail)
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
