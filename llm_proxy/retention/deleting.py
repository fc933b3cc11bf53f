"""Deletes the content of one day in small transactions, between which calls are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, select

from llm_proxy.records.audit_tables import legal_holds, purged
from llm_proxy.records.tables import blobs, salts
from llm_proxy.retention.held import Holds, held_runs, holds, kept_addresses

PAGE = 20_000
"""Pieces of content that are looked up together."""
AT_A_TIME = 500
"""Pieces in one transaction, at most."""
BYTES_AT_A_TIME = 16 << 20


class HoldsChanged(Exception):
    """A legal hold was placed or released meanwhile: what is kept has to be told anew."""


class Gone(NamedTuple):
    """What was deleted: pieces of content, and their bytes before compression."""

    blobs: int = 0
    bytes: int = 0


class Day:
    """One day's content under one state of the holds. Blocks on the store; call it from a thread.

    Until `HoldsChanged`, `step` deletes some and tells what; None once nothing is left but what holds keep.
    """

    def __init__(self, engine: Engine, epoch: int) -> None:
        self._engine = engine
        self._epoch = epoch
        with engine.connect() as connection:
            self._holds = holds(connection)
            self.held = held_runs(connection)
            self._kept = kept_addresses(connection, self.held, epoch) if self.held else set[bytes]()
        self._steps = self._plan()

    def step(self) -> Gone | None:
        """Raises `HoldsChanged`."""
        some = next(self._steps, None)
        if some is None:
            return None
        with _deleting(self._engine) as connection, connection.begin():
            if _settled(connection) != self._holds:
                raise HoldsChanged
            ids = [id_ for id_, _ in some]
            connection.execute(blobs.delete().where(blobs.c.id.in_(ids), blobs.c.epoch == self._epoch))
            gone = Gone(len(some), sum([size for _, size in some]))
            so_far = {"blobs": purged.c.blobs + gone.blobs, "bytes": purged.c.bytes + gone.bytes}
            connection.execute(purged.update().where(purged.c.epoch == self._epoch).values(so_far))
        return gone

    def end(self) -> int:
        """Deletes the day's salt, unless something of the day is kept; how many pieces are.

        Raises `HoldsChanged`.
        """
        with _deleting(self._engine) as connection, connection.begin():
            if _settled(connection) != self._holds:
                raise HoldsChanged
            left = select(func.count()).select_from(blobs).where(blobs.c.epoch == self._epoch)
            kept: int = connection.execute(left).scalar_one()
            if not kept:
                connection.execute(salts.delete().where(salts.c.epoch == self._epoch))
        return kept

    def _plan(self) -> Iterator[list[tuple[bytes, int]]]:
        """What goes, transaction by transaction."""
        while page := self._page():
            step: list[tuple[bytes, int]] = []
            size = 0
            for row in page:
                step.append(row)
                size += row[1]
                if len(step) >= AT_A_TIME or size >= BYTES_AT_A_TIME:
                    yield step
                    step, size = [], 0
            if step:
                yield step

    def _page(self) -> list[tuple[bytes, int]]:
        """Some that go: with as many rows read as are kept, there are some among them if there are any."""
        query = select(blobs.c.id, blobs.c.size).where(blobs.c.epoch == self._epoch)
        with self._engine.connect() as connection:
            rows = connection.execute(query.limit(PAGE + len(self._kept)))
            return [(id_, size) for id_, size in ((bytes(r[0]), r[1]) for r in rows) if id_ not in self._kept]


def _settled(connection: Connection) -> Holds:
    """How the holds stand until the transaction ends: one that is being placed is waited for, and waits."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"LOCK TABLE {legal_holds.name} IN SHARE MODE")
    return holds(connection)


def _deleting(engine: Engine) -> Connection:
    """A connection that writes. On SQLite what is deleted is overwritten: free pages keep nothing."""
    connection = engine.connect().execution_options(writes=True)
    if connection.dialect.name == "sqlite":
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("PRAGMA secure_delete=ON")
    return connection


def in_steps(engine: Engine, change: Callable[[Connection], int]) -> Iterator[int]:
    """Runs `change`, each time in a transaction of its own, until it changes nothing."""
    while True:
        with _deleting(engine) as connection, connection.begin():
            changed = change(connection)
        if not changed:
            return
        yield changed
