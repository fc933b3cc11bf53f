"""Makes the checkpoints: every minute or every thousand records, one process at a time, and at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.audit.checkpoint import Checkpoint, signed_body
from llm_proxy.errors import ProxyError
from llm_proxy.records.audit_tables import covered
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, RecordKind
from llm_proxy.records.leases import Lease
from llm_proxy.records.prepared import upsert
from llm_proxy.records.started import Place, last_checkpoint
from llm_proxy.records.tables import writers
from llm_proxy.records.writer import Writer
from llm_proxy.signing import SigningKey

log = structlog.get_logger("llm_proxy.audit")

LOOK_S = 1.0
EVERY_US = 60_000_000
EVERY_RECORDS = 1_000


class _Seen(NamedTuple):
    """How many writers there are, and how many records all of them have."""

    writers: int
    records: int


class _Ends(NamedTuple):
    """What a checkpoint signs, read in its own transaction."""

    previous: Place | None
    heads: tuple[Place, ...]
    seen: _Seen


class Checkpointer:
    """One per worker. A new writer is signed at once; records within a minute, or when there are enough."""

    def __init__(self, engine: Engine, writer: Writer, key: SigningKey, now_us: Callable[[], int]) -> None:
        self._engine = engine
        self._writer = writer
        self._key = key
        self._now_us = now_us
        self._lease = Lease(engine, "checkpoint", writer.id, now_us)
        self._covered: dict[str, int] | None = None
        """How far each writer's chain is signed; None while another process leads."""
        self._signed = _Seen(0, 0)
        self._at_us = 0

    async def run(self) -> None:
        """Runs for as long as the worker does."""
        while True:
            try:
                await self.step()
            except (ProxyError, SQLAlchemyError, OSError) as error:
                log.warning("a checkpoint waits for the store", error=type(error).__name__)
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """A last checkpoint, whoever leads: nobody else may be there to sign what this process wrote."""
        try:
            await self.step(last=True)
            await asyncio.to_thread(self._lease.release)
        except (ProxyError, SQLAlchemyError, OSError) as error:
            log.warning("there is no last checkpoint", error=type(error).__name__)

    async def step(self, *, last: bool = False) -> bool:
        """One look; whether a checkpoint was made. Raises what the store raises."""
        leads = await asyncio.to_thread(self._lease.lead)
        if not leads:
            self._covered = None
            if not last:
                return False
        if self._covered is None:
            self._covered = await asyncio.to_thread(self._load)
            self._signed = _Seen(0, 0)
        seen = await asyncio.to_thread(self._look)
        if not (last or self._is_due(seen)) or seen == self._signed:
            return False
        ends: _Ends = await self._writer.submit(self._job(dict(self._covered)))
        if ends.heads:
            self._covered |= {head.writer: head.seq for head in ends.heads}
            await asyncio.to_thread(self._note, ends.heads)
        self._at_us = self._now_us()
        # The checkpoint is a record itself, which makes nothing new to sign.
        self._signed = ends.seen._replace(records=ends.seen.records + bool(ends.heads))
        return bool(ends.heads)

    def _is_due(self, seen: _Seen) -> bool:
        return (
            seen.writers != self._signed.writers
            or seen.records - self._signed.records >= EVERY_RECORDS
            or self._now_us() - self._at_us >= EVERY_US
        )

    def _job(self, known: dict[str, int]) -> Job:
        def then(found: Found) -> Wrote:
            ends: _Ends = found.seen
            if not ends.heads:
                return Wrote(ends)
            now = self._now_us()
            told = Checkpoint(at_us=now, key=self._key.id, previous=ends.previous, heads=ends.heads)
            draft = Draft(RecordKind.CHECKPOINT, now, None, None, None, signed_body(told, self._key))
            return Wrote(ends, Evidence(records=(draft,)))

        return Job(then, look=lambda connection: _ends(connection, known))

    def _look(self) -> _Seen:
        query = select(func.count(), func.sum(writers.c.head_seq))
        with self._engine.connect() as connection:
            count, total = connection.execute(query).one()
        return _Seen(count, int(total or 0))

    def _load(self) -> dict[str, int]:
        with self._engine.connect() as connection:
            return {row.writer: row.seq for row in connection.execute(select(covered)).all()}

    def _note(self, heads: tuple[Place, ...]) -> None:
        """For whoever leads next. Where this process ends before, some heads are signed twice."""
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            statement = upsert(covered, connection.dialect)
            statement = statement.on_conflict_do_update(
                index_elements=["writer"], set_={"seq": statement.excluded.seq}
            )
            connection.execute(statement, [{"writer": head.writer, "seq": head.seq} for head in heads])


def _ends(connection: Connection, known: dict[str, int]) -> _Ends:
    """Every head that isn't the one that was signed last, committed all of them.

    One that was signed further than its chain goes is named as well: verifying finds what is missing.
    """
    rows = connection.execute(
        select(writers.c.writer, writers.c.head_seq, writers.c.head_hash).order_by(writers.c.writer)
    ).all()
    heads = [Place(id_, seq, bytes(hash_).hex()) for id_, seq, hash_ in rows if seq and known.get(id_) != seq]
    return _Ends(
        last_checkpoint(connection), tuple(heads), _Seen(len(rows), sum(row.head_seq for row in rows))
    )
