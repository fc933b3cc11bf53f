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
_INSERT = re.compile(r"(INSERT INTO .+? VALUES )(\(\?(?:, \?)*\))(.*)", re.DOTALL)
_UPDATE = re.compile(r"UPDATE (\w+) SET (.+) WHERE \w+\.(\w+) = \?", re.DOTALL)
_MARK = re.compile(r"\?")
_MOST_PARAMETERS = 30_000
"""SQLite takes 32,766 in one statement."""


class Prepared:
    """One INSERT or UPDATE: its SQL text, and the order of its parameters.

    On SQLite many rows go in one statement: the driver gives up the interpreter lock for each step it runs,
    and the event loop's thread would take it between any two rows.
    """

    __slots__ = ("_many", "names", "sql")

    def __init__(self, statement: Insert | Update, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        sql = str(compiled)
        if compiled.positiontup is None:
            self.names: tuple[str, ...] = tuple(_NAMED.findall(sql))
            sql = _NAMED.sub("%s", sql)
        else:
            self.names = tuple(compiled.positiontup)
        self.sql = sql
        self._many = _many(sql, len(self.names)) if dialect.name == "sqlite" else None

    def run(self, connection: Connection, rows: list[tuple[Any, ...]]) -> int:
        """Executes for every row; values stand in the order of `names`. Returns how many rows it touched."""
        if not rows:
            return 0
        if self._many is None or len(rows) == 1:
            return connection.exec_driver_sql(self.sql, rows).rowcount
        head, marks, tail = self._many
        touched = 0
        most = _MOST_PARAMETERS // len(self.names)
        for start in range(0, len(rows), most):
            some = rows[start : start + most]
            sql = head + ",".join([marks] * len(some)) + tail
            touched += connection.exec_driver_sql(sql, tuple(chain.from_iterable(some))).rowcount
        return touched


def _many(sql: str, width: int) -> tuple[str, str, str] | None:
    """The statement for many rows: what stands before them, one row's marks, and what stands after.

    An UPDATE takes them as a table to join with; no two rows of it may have one key.
    """
    insert = _INSERT.fullmatch(sql)
    if insert is not None:
        return insert[1], insert[2], insert[3]
    update = _UPDATE.fullmatch(sql)
    if update is None:
        return None
    table, key = update[1], update[3]
    values = iter(f"v{n}" for n in range(width))
    assignments = _MARK.sub(lambda _: f"new.{next(values)}", update[2])
    columns = ", ".join(f"v{n}" for n in range(width))
    marks = f"({', '.join('?' * width)})"
    tail = f") UPDATE {table} SET {assignments} FROM new WHERE {table}.{key} = new.{next(values)}"  # noqa: S608
    return f"WITH new({columns}) AS (VALUES ", marks, tail


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
