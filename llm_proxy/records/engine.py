"""Opens the store: one SQLAlchemy engine for SQLite or PostgreSQL, set up for durable group commits."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

BUSY_MS = 5_000
"""How long a transaction waits for another's lock, before the store counts as down."""
ANSWER_S = 10.0
"""How long a call waits for PostgreSQL's answer. Over `BUSY_MS`, so that a held lock is told as one."""
_SHORTLY_MS = 8
"""SQLite looks after 1, 2 and 5 ms."""
_IDLE_MS = 15_000
_GUARDS = (
    f"SET lock_timeout = {BUSY_MS}",
    # A host that vanished in a transaction would keep its locks for hours.
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)
_ALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
"""libpq's: without them a write to a host that vanished waits for hours."""


def open_engine(url: str | URL, *, readers: int = 4, patience_s: float | None = None) -> Engine:
    """An engine whose transactions are durable on commit.

    SQLite runs in WAL with `synchronous=FULL` (an fsync per commit) and takes its write lock at BEGIN, so
    that a transaction that reads counters can't lose an update. PostgreSQL is used as it comes, at READ
    COMMITTED; a server that has gone silent is given up after `patience_s` (None: never, for work of any
    length), one that can't be reached after seconds. Errors don't quote the rows.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    return _postgresql(parsed, readers, patience_s)


def writing(engine: Engine) -> Connection:
    """A connection for the writer. On PostgreSQL, a process that stands still in a transaction loses it."""
    connection = hurried(engine.connect()).execution_options(writes=True)
    if connection.dialect.name == "postgresql":
        with connection.begin():
            connection.exec_driver_sql(f"SET idle_in_transaction_session_timeout = {_IDLE_MS}")
    return connection


def hurried(connection: Connection) -> Connection:
    """The same connection, with no more patience than a call has."""
    return _patient(connection, ANSWER_S)


def unhurried(connection: Connection) -> Connection:
    """The same connection, with all the patience that a migration needs."""
    return _patient(connection, None)


def _patient(connection: Connection, patience_s: float | None) -> Connection:
    raw: Any = connection.connection.driver_connection
    if hasattr(raw, "patience_s"):
        raw.patience_s = patience_s
    return connection


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


def _postgresql(url: URL, readers: int, patience_s: float | None) -> Engine:
    from llm_proxy.records.impatient import make_impatient  # noqa: PLC0415 (psycopg takes time and memory)

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
            cursor.execute("; ".join(_GUARDS))
        connection.commit()

    event.listen(engine, "connect", on_connect)
    make_impatient(engine, patience_s)
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

    def on_begin(connection: Connection) -> None:
        if connection.get_execution_options().get("writes"):
            _begin_writing(connection)
        else:
            connection.exec_driver_sql("BEGIN DEFERRED")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _begin_writing(connection: Connection) -> None:
    """Takes SQLite's write lock, within `BUSY_MS`, or what the option `busy_ms` of the connection says.

    SQLite looks for it less and less often, up to every 100 ms, and would hardly ever meet the moment between
    two transactions of another that writes without pause. So it waits shortly, and again from the start.
    """
    if not connection.info.get("shortly"):
        connection.exec_driver_sql(f"PRAGMA busy_timeout={_SHORTLY_MS}")
        connection.info["shortly"] = True
    raw: Any = connection.connection.driver_connection
    busy_ms = connection.get_execution_options().get("busy_ms", BUSY_MS)
    until = time.monotonic() + (busy_ms - _SHORTLY_MS) / 1000
    while time.monotonic() < until:
        try:
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                break
        else:
            return
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # so that what went wrong is told like any other failure
