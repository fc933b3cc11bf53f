"""Core statements compiled once per dialect and run through the driver with plain tuples.

A batch inserts many rows with the same few statements; compiling and binding them anew for each batch
costs more than the database does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.dml import Insert, Update

_NAMED = re.compile(r"%\((\w+)\)s")
_ONE_ROW = re.compile(r"(INSERT INTO .+? VALUES )(\(\?(?:, \?)*\))(.*)", re.DOTALL)
_MOST_PARAMETERS = 30_000
"""SQLite takes 32,766 in one statement."""


class Prepared:
    """One INSERT or UPDATE: its SQL text, and the order of its parameters.

    On SQLite the rows of an INSERT go in one statement: the driver gives up the interpreter lock for each
    step it runs, and the event loop's thread would take it between any two rows.
    """

    __slots__ = ("_one_row", "names", "sql")

    def __init__(self, statement: Insert | Update, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        sql = str(compiled)
        if compiled.positiontup is None:
            self.names: tuple[str, ...] = tuple(_NAMED.findall(sql))
            sql = _NAMED.sub("%s", sql)
        else:
            self.names = tuple(compiled.positiontup)
        self.sql = sql
        self._one_row = _ONE_ROW.fullmatch(sql) if dialect.name == "sqlite" else None

    def run(self, connection: Connection, rows: list[tuple[Any, ...]]) -> int:
        """Executes for every row; values stand in the order of `names`. Returns how many rows it touched."""
        if not rows:
            return 0
        if self._one_row is None or len(rows) == 1:
            return connection.exec_driver_sql(self.sql, rows).rowcount
        return self._run_together(connection, self._one_row, rows)

    def _run_together(
        self, connection: Connection, one_row: re.Match[str], rows: list[tuple[Any, ...]]
    ) -> int:
        head, marks, tail = one_row.groups()
        touched = 0
        most = _MOST_PARAMETERS // len(self.names)
        for start in range(0, len(rows), most):
            some = rows[start : start + most]
            sql = head + ",".join([marks] * len(some)) + tail
            touched += connection.exec_driver_sql(sql, tuple(chain.from_iterable(some))).rowcount
        return touched


def upsert(table: Table, dialect: Dialect) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can take `ON CONFLICT`, in either dialect."""
    return postgresql.insert(table) if dialect.name == "postgresql" else sqlite.insert(table)


def select_in(connection: Connection, columns: str, table: str, key: str, values: Sequence[Any]) -> list[Any]:
    """Rows of `table` whose `key` is one of `values`; one round trip however many there are.

    SQLAlchemy's expanding IN renders every value anew, which costs more than the query. The names are
    constants of ours; every value is a bound parameter.
    """
    if connection.dialect.name == "postgresql":
        sql = f"SELECT {columns} FROM {table} WHERE {key} = ANY(%s)"  # noqa: S608
        return list(connection.exec_driver_sql(sql, (list(values),)).fetchall())
    marks = ",".join("?" * len(values))
    sql = f"SELECT {columns} FROM {table} WHERE {key} IN ({marks})"  # noqa: S608
    return list(connection.exec_driver_sql(sql, tuple(values)).fetchall())
