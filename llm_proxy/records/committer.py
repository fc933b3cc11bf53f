"""The writer's connection: commits batches, and knows where the chain ends and which salt is the day's."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog
from sqlalchemy import Connection, Engine, select

from budgets import LimitBook, SqlLedger
from llm_proxy.records.batch import Announce, Done, Head, Job, run_batch
from llm_proxy.records.blobs import Codec, ensure_salt, epoch_of
from llm_proxy.records.chain import GENESIS, Row, link
from llm_proxy.records.engine import discard, writing
from llm_proxy.records.started import started_draft
from llm_proxy.records.statements import Statements
from llm_proxy.records.tables import writers

log = structlog.get_logger("llm_proxy.records")


class Committer:
    """Used from one thread, the writer's, but for `register`, which comes before it."""

    def __init__(
        self,
        engine: Engine,
        writer: str,
        now_us: Callable[[], int],
        watched: LimitBook | None = None,
        announce: Announce | None = None,
        *,
        keeps_content: bool = True,
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._now_us = now_us
        self._announce = announce
        self._ledger = SqlLedger(engine.dialect, watched=watched)
        self._statements = Statements(engine.dialect)
        self._codec = Codec() if keeps_content else None
        self._head = Head(0, GENESIS)
        self._salts: dict[int, bytes] = {}
        """Today's and yesterday's, by day."""
        self._connection: Connection | None = None

    def register(self) -> tuple[int, bytes]:
        """Notes the writer in the store, begins its chain, and returns the day and its salt."""
        now = self._now_us()
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            draft = started_draft(connection, now)
            first = Row(self._writer, 1, draft.kind.value, *draft[1:])
            head = Head(1, link(GENESIS, first))
            connection.execute(
                writers.insert().values(
                    writer=self._writer,
                    started_us=now,
                    seen_us=now,
                    head_seq=head.seq,
                    head_hash=head.hash,
                    exported_seq=0,
                )
            )
            self._statements.record.run(connection, [(*msgspec.structs.astuple(first), head.hash)])
            salt = ensure_salt(connection, epoch_of(now))
        self._head = head
        return epoch_of(now), salt

    def commit(self, jobs: list[Job]) -> Done:
        """Runs `jobs` in one transaction. Where it raises, none of them has changed anything."""
        now = self._now_us()
        connection = self._connected()
        salt = self._learn_salt(connection, epoch_of(now))

        def salt_of(epoch: int) -> bytes:
            known = self._salts.get(epoch)
            return known if known is not None else ensure_salt(connection, epoch)

        with connection.begin():
            done = run_batch(
                connection,
                jobs,
                ledger=self._ledger,
                statements=self._statements,
                codec=self._codec,
                writer=self._writer,
                head=self._head,
                now_us=now,
                salt_of=salt_of,
                announce=self._announce,
            )
        if done.head is not None:
            self._head = done.head
        done.salt = salt
        return done

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def close(self) -> None:
        """Lets go of the connection, whatever state it's in; the next commit opens another."""
        connection, self._connection = self._connection, None
        if error := discard(connection):
            log.warning("closing a broken connection failed", error=type(error).__name__)

    def _connected(self) -> Connection:
        connection = self._connection
        if connection is None:
            connection = writing(self._engine)
            try:
                with connection.begin():
                    self._find_head(connection)
            except BaseException:
                discard(connection)
                raise
            self._connection = connection
        return connection

    def _find_head(self, connection: Connection) -> None:
        """A connection lost during a commit leaves open whether it went through: the store knows.

        A server that was only slow may still be at that commit, so its lock on the row is waited for.
        """
        query = select(writers.c.head_seq, writers.c.head_hash).where(writers.c.writer == self._writer)
        query = query.with_for_update()
        row = connection.execute(query).first()
        if row is not None and row.head_seq > self._head.seq:
            self._head = Head(row.head_seq, bytes(row.head_hash))

    def _learn_salt(self, connection: Connection, epoch: int) -> tuple[int, bytes]:
        """In a transaction of its own: a salt in use must not be rolled back with a batch."""
        salt = self._salts.get(epoch)
        if salt is None:
            with connection.begin():
                salt = ensure_salt(connection, epoch)
            # What a request addressed before midnight is committed after it.
            self._salts = {day: kept for day, kept in self._salts.items() if day == epoch - 1} | {epoch: salt}
        return epoch, salt
