"""How a model's name meets an entry: literally first, else as a glob; and which name may have been meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def matches(entry: str, name: str) -> bool:
    """Whether `entry` is `name`, or a glob of it. Only `*` and `?` are wild, as in `routing.targets`."""
    if entry == name or entry == "*":
        return True
    if "*" not in entry:
        return False
    wild = {"*": ".*", "?": "."}
    return re.fullmatch("".join(wild.get(c) or re.escape(c) for c in entry), name, re.DOTALL) is not None


def resolves(name: str, models: Iterable[str]) -> bool:
    """Whether a call for `name` finds one of `models`, whose names may be globs."""
    return any(matches(model, name) for model in models)


def meets(entry: str, models: Iterable[str]) -> bool:
    """Whether an agent's entry allows at least one name that one of `models` serves."""
    return any(matches(model, entry) or matches(entry, model) for model in models)


def nearest(word: str, known: Iterable[str]) -> str:
    names = tuple(known)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known are {', '.join(names)}" if names else "none is defined"
