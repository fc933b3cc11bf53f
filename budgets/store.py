"""What keeps a ledger: the protocol that every store meets, proven by one contract suite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from budgets.ledger import Counter, Op, Result


class LedgerStore(Protocol):
    """Counters and holds that many threads and processes share."""

    def apply(self, ops: Sequence[Op], now_us: int) -> list[Result]:
        """Do `ops` in order as one atomic step, at `now_us` (Unix µs): one result each, in order.

        No other step interleaves; where it raises, nothing was done.
        """
        ...

    def peek(self, keys: Iterable[str]) -> dict[str, Counter]:
        """The counters under `keys` that were ever written."""
        ...
