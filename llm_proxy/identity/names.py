"""Sets of names: literal ones before globs, so that a name may hold any character."""

from __future__ import annotations

import re
from collections.abc import Iterable


class NameSet:
    """Exact names and `*` globs. Membership of an exact name costs one lookup."""

    __slots__ = ("_exact", "_globs")

    def __init__(self, names: Iterable[str] = ()) -> None:
        listed = tuple(names)
        self._exact = frozenset(listed)
        self._globs = tuple(_glob(name) for name in listed if "*" in name)

    def __contains__(self, name: str) -> bool:
        if name in self._exact:
            return True
        return any(glob.fullmatch(name) for glob in self._globs)

    def __bool__(self) -> bool:
        return bool(self._exact)


def _glob(name: str) -> re.Pattern[str]:
    """Each middle piece is taken where it's first found, for good: going back could take for ever."""
    first, *between, last = map(re.escape, name.split("*"))
    return re.compile("".join([first, *(f"(?>.*?{piece})" for piece in between), ".*", last]), re.DOTALL)
