"""Large content on SQLite: written into its row piece by piece, where a bound value would be copied twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

LARGE = 1 << 20
"""Bytes from which content is stored with care for memory."""

_PIECE = 1 << 20
_ROOM = (
    "INSERT INTO blobs (id, epoch, codec, size, data) VALUES (?, ?, ?, ?, zeroblob(?)) ON CONFLICT DO NOTHING"
)


def write_large(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Inserts rows of `blobs` in the open transaction, unless they're there. Raises OSError, too, where the
    store can't be written."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    for *head, data in rows:
        with memoryview(data) as content:
            made = connection.exec_driver_sql(_ROOM, (*head, content.nbytes))
            if made.rowcount != 1:
                continue
            try:
                with raw.blobopen("blobs", "data", made.lastrowid) as blob:
                    for start in range(0, content.nbytes, _PIECE):
                        blob.write(content[start : start + _PIECE])
            except sqlite3.Error as error:
                raise OSError(f"large content can't be written: {type(error).__name__}") from error
