"""Core statements compiled once per dialect and run through the driver with plain tuples.

A batch inserts many rows with the same few statements; compiling and binding them anew for each batch
costs more than the database does.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.dml import Insert, Update

_NAMED = re.compile(r"%\((\w+)\)s")


class Prepared:
    """One INSERT or UPDATE: its SQL text, and the order of its parameters."""

    __slots__ = ("names", "sql")

    def __init__(self, statement: Insert | Update, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        sql = str(compiled)
        if compiled.positiontup is None:
            self.names: tuple[str, ...] = tuple(_NAMED.findall(sql))
            sql = _NAMED.sub("%s", sql)
        else:
            self.names = tuple(compiled.positiontup)
        self.sql = sql

    def run(self, connection: Connection, rows: list[tuple[Any, ...]]) -> None:
        """Executes for every row; values stand in the order of `names`."""
        if rows:
            connection.exec_driver_sql(self.sql, rows)


def upsert(table: Table, dialect: Dialect) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can take `ON CONFLICT`, in either dialect."""
    return postgresql.insert(table) if dialect.name == "postgresql" else sqlite.insert(table)
