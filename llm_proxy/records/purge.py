"""Clears away what ended long ago: counters of minutes, hours and rolling windows, ends of conversations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from budgets import SqlLedger
from llm_proxy.records import prefixes
from llm_proxy.records.leases import Lease

log = structlog.get_logger("llm_proxy.records")

EVERY_US = 600 * 1_000_000
"""Between two turns, whichever process of those that share the store takes them."""
KEPT_US = 40 * 86_400 * 1_000_000
"""How long a counter stays after its span ended."""
AT_A_TIME = 1_000
"""Counters that a step looks at, and deletes in one transaction."""
STEPS = 200
"""In a turn; where that isn't all, the next turn goes on from there."""
PAUSE_S = 0.05
"""After a step: whoever waits to write comes in between."""


class Purge:
    """One per worker; a turn is taken by one of them. `holder` names it."""

    def __init__(
        self, engine: Engine, holder: str, now_us: Callable[[], int], retention_us: int = prefixes.KEPT_US
    ) -> None:
        """`retention_us`: how long content is kept, which hashes of it don't outlive."""
        self._engine = engine
        self._conversations_us = min(prefixes.KEPT_US, retention_us)
        self._now_us = now_us
        self._lease = Lease(engine, "purge", holder, now_us, EVERY_US)
        self._ledger = SqlLedger(engine.dialect)
        self._after = ""

    async def run(self) -> None:
        """Runs for as long as the worker does."""
        while True:
            try:
                deleted = await self.turn()
                if deleted:
                    log.info("counters that ended long ago were deleted", counters=deleted)
            except (SQLAlchemyError, OSError) as error:
                log.warning("ended counters wait to be deleted", error=type(error).__name__)
            await asyncio.sleep(EVERY_US / 1e6)

    async def turn(self) -> int:
        """Deletes in steps, and returns how many counters; nothing where another process took its turn."""
        if not await asyncio.to_thread(self._lease.lead):
            return 0
        before_us, deleted = self._now_us() - KEPT_US, 0
        for _ in range(STEPS):
            deleted += await asyncio.to_thread(self._step, before_us)
            if not self._after:
                break
            await asyncio.sleep(PAUSE_S)
        for _ in range(STEPS):
            if not await asyncio.to_thread(self._forget, self._now_us() - self._conversations_us):
                break
            await asyncio.sleep(PAUSE_S)
        return deleted

    def _forget(self, before_us: int) -> bool:
        """Forgets conversations and traces that went on no more; whether there may be others."""
        with self._engine.connect() as connection:
            if not prefixes.old(connection, before_us):
                return False
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            return prefixes.forget(connection, before_us, AT_A_TIME) >= AT_A_TIME

    def _step(self, before_us: int) -> int:
        """Reads first: where nothing is to be deleted, no writer is kept waiting."""
        with self._engine.connect() as connection:
            found = self._ledger.ended(connection, before_us, self._after, AT_A_TIME)
        deleted = 0
        if found.keys:
            with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                deleted = self._ledger.purge(connection, found.keys)
        self._after = found.last
        return deleted
