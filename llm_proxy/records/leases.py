"""Leases in the store: one process at a time does what only one should do."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine, or_

from llm_proxy.records.prepared import upsert
from llm_proxy.records.tables import leases

LEASE_US = 15_000_000
RENEW_US = 5_000_000
"""How long after it took a lease a process counts on it without asking again."""


class Lease:
    """The lease `name`, for `holder`. `lead` blocks on the store; call it from a thread.

    Nobody else gets it for `lasts_us` after it was taken: a long one that isn't renewed paces its job.
    """

    def __init__(
        self, engine: Engine, name: str, holder: str, now_us: Callable[[], int], lasts_us: int = LEASE_US
    ) -> None:
        self._engine = engine
        self._name = name
        self._holder = holder
        self._now_us = now_us
        self._lasts_us = lasts_us
        self._until = 0

    def lead(self) -> bool:
        """Takes or renews the lease, writing at most every few seconds; False while another holds it."""
        now = self._now_us()
        renewed = self._until - self._lasts_us
        if renewed <= now < renewed + RENEW_US:
            return True
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            first = upsert(leases, connection.dialect).values(
                name=self._name, holder=self._holder, until_us=0
            )
            connection.execute(first.on_conflict_do_nothing())
            free = or_(leases.c.holder == self._holder, leases.c.until_us < now)
            taken = connection.execute(
                leases.update()
                .where(leases.c.name == self._name, free)
                .values(holder=self._holder, until_us=now + self._lasts_us)
            )
        self._until = now + self._lasts_us if taken.rowcount else 0
        return bool(self._until)

    def release(self) -> None:
        """Lets another process take it at once."""
        if self._until:
            with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                mine = (leases.c.name == self._name) & (leases.c.holder == self._holder)
                connection.execute(leases.update().where(mine).values(until_us=0))
            self._until = 0
