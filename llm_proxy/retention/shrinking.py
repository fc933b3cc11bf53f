"""Gives the pages of a SQLite store that nothing uses any more back to the file system."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, select

from llm_proxy.records.tables import leases

_BUSY_S = 5.0
_WITH = ("", "-wal", "-shm")
SERVING = "recovery"
"""The lease that one of the processes which serve a store always holds."""


def serves(connection: Connection, now_us: int) -> bool:
    """Whether a proxy serves this store, or did until some seconds ago."""
    held = select(leases.c.holder).where(leases.c.name == SERVING, leases.c.until_us > now_us)
    return connection.execute(held).first() is not None


def size(files: Iterable[Path]) -> int:
    """Bytes on disk, of what SQLite keeps beside them too."""
    paths = [file.with_name(file.name + end) for file in files for end in _WITH]
    return sum(path.stat().st_size for path in paths if path.exists())


def shrink(file: Path) -> None:
    """Writes the file anew, which takes as much free space as it has content. Raises `sqlite3.Error`."""
    with closing(sqlite3.connect(file, timeout=_BUSY_S, isolation_level=None)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
