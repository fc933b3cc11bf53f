"""The store's outbox: ended calls in the order in which each writer committed them, and how far they went.

A writer's sequence numbers are committed in order, so a cursor per writer can't pass over a row that commits
late, as a cursor over one shared sequence could.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, and_, case, func, select

from llm_proxy.archive.calls import call_views
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.leases import Lease
from llm_proxy.records.prepared import upsert
from llm_proxy.records.tables import dead_letters, records, writers
from llm_proxy.telemetry.outbox import Backlog, Batch

_TERMINAL = (RecordKind.CALL_CLOSED.value, RecordKind.CALL_REFUSED.value)
_SCAN = 2_000
"""Rows of the record that one step looks at."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything of `writer` up to `seq` was sent."""

    writer: str
    seq: int


class StoreOutbox:
    """A `SpanSource` over the store. One process at a time exports: whoever holds the lease."""

    def __init__(self, engine: Engine, holder: str, now_us: Callable[[], int]) -> None:
        self._engine = engine
        self._now_us = now_us
        self._lease = Lease(engine, "otlp", holder, now_us)
        self._turn = ""
        """The writer whose calls were given out last: the others come first now, however busy it is."""

    def release(self) -> None:
        """Lets another process export at once."""
        self._lease.release()

    def next(self, limit: int) -> Batch | None:
        if not self._lease.lead():
            return None
        while True:
            # A new connection each time: the cursor just moved must be seen.
            with self._engine.connect() as connection:
                found = self._behind(connection)
                if found is None:
                    return None
                writer, after, head = found
                chosen = self._terminal(connection, writer, after)[:limit]
                if chosen:
                    views = call_views(connection, [call_id for _, call_id in chosen])
                    return Batch(calls=tuple(views), cursor=Cursor(writer, chosen[-1][0]))
            self._move(Cursor(writer, min(head, after + _SCAN)))

    def advance(self, cursor: object) -> None:
        assert isinstance(cursor, Cursor)
        self._move(cursor)

    def dead_letter(self, call_id: str, reason: str) -> None:
        with self._writing() as connection, connection.begin():
            row = upsert(dead_letters, connection.dialect).values(
                call_id=call_id, at_us=self._now_us(), reason=reason[:2000]
            )
            connection.execute(row.on_conflict_do_nothing())

    def backlog(self) -> Backlog:
        """Counted in records, by the writers' heads: counting calls would read every row that waits."""
        with self._engine.connect() as connection:
            behind = writers.c.head_seq > writers.c.exported_seq
            unsent = func.sum(writers.c.head_seq - writers.c.exported_seq)
            count = connection.execute(select(unsent).where(behind)).scalar()
            next_up = and_(records.c.writer == writers.c.writer, records.c.seq == writers.c.exported_seq + 1)
            first = (
                select(func.min(records.c.at_us)).select_from(writers.join(records, next_up)).where(behind)
            )
            return Backlog(count=int(count or 0), oldest_us=connection.execute(first).scalar())

    def _behind(self, connection: Connection) -> tuple[str, int, int] | None:
        query = (
            select(writers.c.writer, writers.c.exported_seq, writers.c.head_seq)
            .where(writers.c.head_seq > writers.c.exported_seq)
            .order_by(case((writers.c.writer > self._turn, 0), else_=1), writers.c.writer)
            .limit(1)
        )
        row = connection.execute(query).first()
        if row is None:
            return None
        self._turn = row.writer
        return row.writer, row.exported_seq, row.head_seq

    def _terminal(self, connection: Connection, writer: str, after: int) -> list[tuple[int, str]]:
        query = (
            select(records.c.seq, records.c.call_id)
            .where(
                records.c.writer == writer,
                records.c.seq > after,
                records.c.seq <= after + _SCAN,
                records.c.kind.in_(_TERMINAL),
            )
            .order_by(records.c.seq)
        )
        return [(seq, call_id) for seq, call_id in connection.execute(query) if call_id]

    def _move(self, cursor: Cursor) -> None:
        with self._writing() as connection, connection.begin():
            connection.execute(
                writers.update()
                .where(writers.c.writer == cursor.writer, writers.c.exported_seq < cursor.seq)
                .values(exported_seq=cursor.seq)
            )

    def _writing(self) -> Connection:
        return self._engine.connect().execution_options(writes=True)
