"""Opens the store: one SQLAlchemy engine for SQLite or PostgreSQL, set up for durable group commits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

BUSY_MS = 5_000
"""How long a transaction waits for another's lock, before the store counts as down."""
_ALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
"""libpq's: without them a write to a host that vanished waits for hours."""


def open_engine(url: str | URL, *, readers: int = 4) -> Engine:
    """An engine whose transactions are durable on commit.

    SQLite runs in WAL with `synchronous=FULL` (an fsync per commit) and takes its write lock at BEGIN, so
    that a transaction that reads counters can't lose an update. PostgreSQL is used as it comes, at READ
    COMMITTED; a server that has gone silent is given up after seconds. Errors don't quote the rows.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    return _postgresql(parsed, readers)


def discard(connection: Connection | None) -> SQLAlchemyError | None:
    """Lets go of a kept connection, whatever state it's in. Returns what went wrong on the way."""
    if connection is None:
        return None
    try:
        connection.invalidate()
        connection.close()
    except SQLAlchemyError as error:
        return error
    return None


def _postgresql(url: URL, readers: int) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=readers + 1,
        max_overflow=2,
        pool_pre_ping=False,
        pool_timeout=5,
        isolation_level="READ COMMITTED",
        hide_parameters=True,
        connect_args={"connect_timeout": 5, "application_name": "llm-proxy", **_ALIVE},
    )

    def on_connect(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {BUSY_MS}")
        connection.commit()

    event.listen(engine, "connect", on_connect)
    return engine


def _sqlite(url: URL) -> Engine:
    engine = create_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"timeout": BUSY_MS / 1000, "cached_statements": 1_024},
    )

    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            f"busy_timeout={BUSY_MS}",
            "foreign_keys=ON",
            "cache_size=-16000",
            "temp_store=MEMORY",
            "wal_autocheckpoint=4000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def on_begin(connection: Any) -> None:
        mode = "IMMEDIATE" if connection.get_execution_options().get("writes") else "DEFERRED"
        connection.exec_driver_sql(f"BEGIN {mode}")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine
