"""Tool call ids that a dialect accepts, made the same way each time, so that calls and results still meet."""

from __future__ import annotations

import hashlib
import re

_BAD = re.compile(r"[^a-zA-Z0-9_-]")


def fitting(id_: str, longest: int) -> str:
    """`id_` itself where it is of letters, digits, `_` and `-` and at most `longest`; else a stand-in for it.

    The stand-in keeps the id's start and ends in eight hex digits of its SHA-256. `longest` is 16 or more.
    """
    if 0 < len(id_) <= longest and _BAD.search(id_) is None:
        return id_
    digest = hashlib.sha256(id_.encode()).hexdigest()[:8]
    return f"{_BAD.sub('_', id_)[: longest - 9] or 'call'}_{digest}"
