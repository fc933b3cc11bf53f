"""Engines whose transactions begin as the SQL ledger demands."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, create_engine, event


def ledger_engine(url: str) -> Engine:
    """An engine on `url`; on SQLite in WAL mode, every transaction begun with BEGIN IMMEDIATE."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=20, max_overflow=40)
    engine = create_engine(url, connect_args={"timeout": 30})

    def connect(connection, _record) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    def begin(conn: Connection) -> None:
        conn.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
    return engine
