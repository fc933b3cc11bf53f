"""The ledger's reference store, in memory: the twin that the SQL store is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock

from budgets.amounts import Amount
from budgets.decide import StoredHold, decide, needs
from budgets.ledger import Counter, Op, Result
from budgets.limits import LimitBook
from budgets.tightest import WIDTH
from budgets.watching import Watch


class MemoryStore:
    """Meets `LedgerStore` for the threads of one process. Raises ValueError for a hold id used again.

    Of the limits `watched`, reaching a level is reported.
    """

    def __init__(self, watched: LimitBook | None = None) -> None:
        self._watch = Watch(watched) if watched is not None else None
        self._lock = Lock()
        self._counters: dict[str, list[int]] = {}
        self._holds: dict[str, StoredHold] = {}

    def apply(self, ops: Sequence[Op], now_us: int) -> list[Result]:
        wanted = needs(ops, now_us)
        ids = wanted.holds
        with self._lock:
            due_us = wanted.due_us
            loaded = {
                stored.id: stored
                for stored in self._holds.values()
                if stored.id in ids or (due_us is not None and stored.lease_until_us <= due_us)
            }
            decision = decide(ops, self._counters, loaded, now_us, watch=self._watch)
            if again := self._holds.keys() & decision.opened.keys():
                raise ValueError(f"a hold with the id {min(again)} was taken before: ids must be new")
            self._counters.update(decision.counters)
            self._holds.update(decision.opened)
            self._holds.update(decision.changed)
            for id_ in decision.closed:
                del self._holds[id_]
        return decision.results

    def peek(self, keys: Iterable[str]) -> dict[str, Counter]:
        with self._lock:
            return {
                key: Counter(Amount(*cell[:WIDTH]), Amount(*cell[WIDTH:]))
                for key in keys
                if (cell := self._counters.get(key)) is not None
            }
