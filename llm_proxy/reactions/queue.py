"""Deliveries in the store: which are due, what became of them, and what operators ask of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, Engine, insert, select, update

from llm_proxy.records.evidence import DeliveryRow
from llm_proxy.records.tables import deliveries

_KEPT_US = 30 * 86_400 * 1_000_000
_ABANDONED_US = 25 * 3_600 * 1_000_000
_AT_A_TIME = 1_000
"""Deliveries that `tidy` forgets in one transaction."""
_ERROR_CHARS = 200


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery to be tried now, after `attempts` tries that failed."""

    id: str
    webhook: str
    event: str
    body: str
    attempts: int


class Tried(NamedTuple):
    """What came of a try. Both times None is impossible: it is tried again, or it ended."""

    id: str
    webhook: str
    attempts: int
    next_us: int | None
    ended_us: int | None
    error: str


@dataclass(frozen=True, slots=True)
class Queue:
    """The table, behind an engine; every method blocks."""

    engine: Engine

    def due(self, webhook: str, now_us: int, limit: int) -> list[Due]:
        """The oldest first."""
        d = deliveries.c
        query = (
            select(d.id, d.webhook, d.event, d.body, d.attempts)
            .where(d.webhook == webhook, d.next_us <= now_us)
            .order_by(d.next_us, d.id)
            .limit(limit)
        )
        with self.engine.connect() as connection:
            return [Due(*row) for row in connection.execute(query)]

    def tried(self, results: Iterable[Tried]) -> None:
        """Writes what came of tries; one that an operator queued anew meanwhile stays queued."""
        d = deliveries.c
        with self._writing() as connection, connection.begin():
            for tried in sorted(results):
                row = (d.id == tried.id) & (d.webhook == tried.webhook) & (d.attempts == tried.attempts - 1)
                connection.execute(
                    update(deliveries)
                    .where(row, d.next_us.is_not(None))
                    .values(
                        attempts=tried.attempts,
                        next_us=tried.next_us,
                        ended_us=tried.ended_us,
                        error=tried.error[:_ERROR_CHARS],
                    )
                )

    def add(self, rows: Collection[DeliveryRow]) -> None:
        with self._writing() as connection, connection.begin():
            connection.execute(insert(deliveries), [row._asdict() for row in rows])

    def again(self, id_: str, webhook: str | None, now_us: int) -> list[str]:
        """Queues a delivery anew, with all its tries before it; returns the webhooks that it goes to."""
        d = deliveries.c
        row = (d.id == id_) if webhook is None else (d.id == id_) & (d.webhook == webhook)
        with self._writing() as connection, connection.begin():
            found = connection.execute(select(d.webhook).where(row).order_by(d.webhook)).scalars().all()
            connection.execute(
                update(deliveries).where(row).values(attempts=0, next_us=now_us, ended_us=None, error="")
            )
        return list(found)

    def tidy(self, webhooks: Collection[str], now_us: int) -> int:
        """Forgets what ended a month ago, and gives up what waits for webhooks that are no longer there.

        Returns how many it forgot, at most a thousand: until that is none, there may be more.
        """
        d = deliveries.c
        with self._writing() as connection, connection.begin():
            old = select(d.id).where(d.ended_us < now_us - _KEPT_US).limit(_AT_A_TIME)
            forgotten = connection.execute(deliveries.delete().where(d.id.in_(old), d.ended_us.is_not(None)))
            stray = d.webhook.not_in(tuple(webhooks)) if webhooks else d.webhook.is_not(None)
            connection.execute(
                update(deliveries)
                .where(stray, d.next_us.is_not(None), d.created_us < now_us - _ABANDONED_US)
                .values(next_us=None, ended_us=now_us, error="the configuration has no such webhook any more")
            )
            return forgotten.rowcount

    def _writing(self) -> Connection:
        return self.engine.connect().execution_options(writes=True)
