"""Stores whose commits take long, as on a disk that is slow or stands still for a time."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

_SLOW = """
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('disk.stood_still', true) IS DISTINCT FROM txid_current()::text THEN
        PERFORM set_config('disk.stood_still', txid_current()::text, true);
        PERFORM pg_sleep({seconds});
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER dawdles AFTER INSERT ON records DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION dawdle();
"""
_GAP_S = 0.12
"""Each process that waits looks for the lock every few ms: time enough for all of them to commit."""


@contextmanager
def slow_commits(url: str, seconds: float) -> Generator[None]:
    """Every commit of records takes so long until the block ends."""
    slow = _slow_sqlite if url.startswith("sqlite") else _slow_postgres
    with slow(url, seconds):
        yield


@contextmanager
def _slow_postgres(url: str, seconds: float) -> Generator[None]:
    """Once by transaction, at its very end, as where the log is flushed."""
    engine = create_engine(make_url(url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(_SLOW.format(seconds=seconds))
    try:
        yield
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql("DROP TRIGGER dawdles ON records; DROP FUNCTION dawdle()")


@contextmanager
def _slow_sqlite(url: str, seconds: float) -> Generator[None]:
    """Another has the write lock for so long, again and again: a commit waits as for its disk."""
    over = threading.Event()
    path = make_url(url).database or ""

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as other:
            while not over.is_set():
                other.execute("BEGIN IMMEDIATE")
                over.wait(seconds)
                other.execute("COMMIT")
                over.wait(_GAP_S)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    try:
        yield
    finally:
        over.set()
        holder.join()
