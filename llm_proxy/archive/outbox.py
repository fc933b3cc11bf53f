"""The store's outbox: what spans tell, in the order in which each writer committed it, and how far it went.

A writer's sequence numbers are committed in order, so a cursor per writer can't pass over a row that commits
late, as a cursor over one shared sequence could.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, case, select

from llm_proxy.archive.run_facts import RunTrees
from llm_proxy.archive.told import COLUMNS, TOLD, Record, items_of
from llm_proxy.archive.unsent import LEASE, backlog
from llm_proxy.records.columns import column
from llm_proxy.records.leases import Lease
from llm_proxy.records.prepared import upsert
from llm_proxy.records.tables import dead_letters, records, writers
from llm_proxy.telemetry.items import Backlog, Batch, Item

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
        self._lease = Lease(engine, LEASE, holder, now_us)
        self._trees = RunTrees()
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
                chosen = _told(connection, writer, after)[:limit]
                if chosen:
                    items = items_of(connection, chosen, self._trees)
                    return Batch(items=tuple(items), cursor=Cursor(writer, chosen[-1].seq))
            self._move(Cursor(writer, min(head, after + _SCAN)))

    def advance(self, cursor: object) -> None:
        assert isinstance(cursor, Cursor)
        self._move(cursor)

    def dead_letter(self, item: Item, reason: str) -> None:
        with self._writing() as connection, connection.begin():
            row = upsert(dead_letters, connection.dialect).values(
                call_id=item.id,
                at_us=self._now_us(),
                reason=column(reason, 2_000),
                agent_id=item.ref.agent_id,
                run_id=item.ref.run_id,
                writer=item.writer,
                seq=item.seq,
            )
            connection.execute(row.on_conflict_do_nothing())

    def backlog(self) -> Backlog:
        with self._engine.connect() as connection:
            return backlog(connection)

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

    def _move(self, cursor: Cursor) -> None:
        with self._writing() as connection, connection.begin():
            connection.execute(
                writers.update()
                .where(writers.c.writer == cursor.writer, writers.c.exported_seq < cursor.seq)
                .values(exported_seq=cursor.seq)
            )

    def _writing(self) -> Connection:
        return self._engine.connect().execution_options(writes=True)


def _told(connection: Connection, writer: str, after: int) -> list[Record]:
    """What spans tell of the next rows of that writer."""
    c = records.c
    span = (c.writer == writer, c.seq > after, c.seq <= after + _SCAN)
    query = select(*COLUMNS).where(*span, c.kind.in_(TOLD)).order_by(c.seq)
    return [Record(*row) for row in connection.execute(query)]
