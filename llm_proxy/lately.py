"""What was worked out lately, kept as long as there is room for it: bounded by entries and by bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_OF_ONE = 1 << 16
"""Bytes of a value from which on it is not kept: it is worked out anew."""


class Lately(Generic[K, V]):
    """A memory of `entries` values and `size` bytes; what was not asked for the longest goes first.

    How many bytes a value takes is told with it. Not for use by several threads.
    """

    def __init__(self, entries: int, size: int) -> None:
        self._entries = entries
        self._most = size
        self._known: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.size = 0
        """Bytes of all that is kept."""

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: K) -> V | None:
        known = self._known.get(key)
        if known is None:
            return None
        self._known.move_to_end(key)
        return known[0]

    def keep(self, key: K, value: V, size: int) -> None:
        if size > MOST_OF_ONE:
            return
        _, before = self._known.pop(key, (None, 0))
        self._known[key] = value, size
        self.size += size - before
        while self.size > self._most or len(self._known) > self._entries:
            _, (_, gone) = self._known.popitem(last=False)
            self.size -= gone
