"""One judged reply of a run at a time: the others of this process wait, rather than be judged in vain."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from llm_proxy.records.runstate import RunKey


class Turns:
    """A lock per run, for as long as somebody holds it or waits for it. Used from the event loop only.

    It spares work and decides nothing: what keeps two verdicts apart is the run's revision in the store, over
    which processes still race.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[RunKey, asyncio.Lock] = WeakValueDictionary()

    def of(self, run: RunKey) -> asyncio.Lock:
        lock = self._locks.get(run)
        if lock is None:
            lock = self._locks[run] = asyncio.Lock()
        return lock
