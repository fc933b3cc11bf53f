"""How long a model's replies are: the p99 of the last few hundred, by which a stream's first hold goes."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable

MOST = 500
"""Replies that are remembered of one model."""
ENOUGH = 50
"""Replies from which on a p99 says something."""
LEAST = 1_024
"""Tokens that are expected of any reply."""
_KEYS = 1_000
"""Callers choose the model's name where a target is `*`, so what is kept has to end somewhere."""


class _Sample:
    """The last replies of one model, by age and by length."""

    __slots__ = ("_by_age", "_by_length")

    def __init__(self) -> None:
        self._by_age: deque[int] = deque()
        self._by_length: list[int] = []

    def add(self, tokens: int) -> None:
        if len(self._by_age) >= MOST:
            oldest = self._by_age.popleft()
            del self._by_length[bisect_left(self._by_length, oldest)]
        self._by_age.append(tokens)
        insort(self._by_length, tokens)

    def p99(self) -> int | None:
        """The shortest length that 99 of a hundred replies don't pass; None where there are too few."""
        count = len(self._by_length)
        return self._by_length[-(-99 * count // 100) - 1] if count >= ENOUGH else None


class ReplyLengths:
    """Output tokens of replies, by whatever tells the models apart. Used from the event loop only."""

    def __init__(self) -> None:
        self._samples: dict[str, _Sample] = {}

    def observe(self, key: str, tokens: int) -> None:
        """One reply came whole."""
        sample = self._samples.get(key)
        if sample is None:
            if len(self._samples) >= _KEYS:
                return
            sample = self._samples[key] = _Sample()
        sample.add(tokens)

    def p99(self, key: str) -> int | None:
        """None until `ENOUGH` replies came."""
        sample = self._samples.get(key)
        return None if sample is None else sample.p99()

    def expected(self, keys: Iterable[str]) -> int | None:
        """The most that a reply of any of these is expected to have; None where none of them is known."""
        known = [p99 for key in keys if (p99 := self.p99(key)) is not None]
        return max(LEAST, *known) if known else None
