"""Model names with `*`: what a name that is asked for leads to, as LiteLLM's router reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


def segments(pattern: str, name: str) -> tuple[str, ...] | None:
    """What stands in `name` for each `*` of `pattern`; None where it doesn't match."""
    found = re.fullmatch(re.escape(pattern).replace(r"\*", "(.*)"), name, re.DOTALL)
    return found.groups() if found else None


def filled(pattern: str, parts: Iterable[str]) -> str:
    """`pattern` with its `*` replaced, the first by the first of `parts` and so on."""
    for part in parts:
        pattern = pattern.replace("*", part, 1)
    return pattern


def sent_for(pattern: str, model: str, asked: str) -> str | None:
    """What goes to the provider for `asked`; None where that doesn't match `pattern`."""
    parts = segments(pattern, asked)
    return None if parts is None else filled(model, parts)


def passes_on(pattern: str, model: str) -> bool:
    """Whether the provider gets the name that was asked for, or always the same one."""
    return "*" not in model or model == pattern


def asked_for(pattern: str, model: str, known: Iterable[str]) -> Iterator[str]:
    """The names that lead to those of `known`, the provider's own names, that `model` matches."""
    for name in known:
        parts = segments(model, name)
        if parts is not None:
            yield filled(pattern, parts)
