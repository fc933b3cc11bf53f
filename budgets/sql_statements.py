"""The SQL ledger's statements, compiled once per dialect so that a batch only binds and runs them."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Column,
    ColumnElement,
    CursorResult,
    Dialect,
    Insert,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ClauseElement

from budgets.sql_tables import HELD, TABLES, LedgerTables

Listed = Callable[[Sequence[str]], Any]
Rows = Callable[[Sequence[Sequence[Any]]], Any]
Widened = Callable[[str, int], str]
Fetched = Callable[[CursorResult[Any]], Sequence[Sequence[Any]]]


_ONE_ROW = re.compile(r"(\(\?(?:, \?)*\))")


@dataclass(frozen=True, slots=True)
class Statements:
    """SQL with positional parameters. `[x]` is a list given through `listed`, `{x}` rows through `rows`."""

    counters: str
    """[keys] → whole rows, locked in order of key."""
    peek: str
    """[keys] → whole rows, not locked."""
    add_counters: str | None
    """[keys] → those that were new. None where a counter can be locked before it exists."""
    save_counters: str
    """{whole rows}, new or not."""
    holds: str
    """[ids] → whole rows, locked in order of id."""
    holds_and_due: str
    """[ids], due → the same, and every hold whose lease ended by then."""
    add_holds: str
    """{whole rows}"""
    save_hold: str
    """lease_until_us, expired_us, id; run once for each."""
    top_up: str
    """The amount in each unit, id; run once for each."""
    delete_holds: str
    """[ids]"""
    delete_counters: str
    """[keys]"""
    listed: Listed
    rows: Rows
    widened: Widened
    """A statement and how many rows it takes → the statement for so many."""
    fetched: Fetched
    """What running `counters`, `peek`, `holds` or `holds_and_due` gave → its rows."""


def statements(dialect: Dialect, tables: LedgerTables = TABLES) -> Statements:
    """The statements for SQLite or PostgreSQL. Raises ValueError for any other database."""
    return _compiled(dialect.name, tables)


@cache
def _compiled(dialect: str, tables: LedgerTables) -> Statements:
    """Compiling takes some 10 ms, and readers make a ledger for each look at the counters."""
    compiler = _COMPILERS.get(dialect)
    if compiler is None:
        raise ValueError(f"a ledger can't be kept in {dialect!r}: use sqlite or postgresql")
    return compiler(tables).statements()


class _Compiler(ABC):
    """Writes the statements that both dialects share; a subclass says how lists and rows come in."""

    def __init__(self, tables: LedgerTables) -> None:
        self.counter = tables.counters
        self.hold = tables.holds

    @abstractmethod
    def sql(self, statement: ClauseElement) -> str:
        """The text as the database's own cursor takes it."""

    @abstractmethod
    def among(self, column: Column[Any]) -> ColumnElement[bool]:
        """True where the column is one of a list."""

    @abstractmethod
    def among_or_due(self) -> ColumnElement[bool]:
        """True for a hold whose id is one of a list, or whose lease ended."""

    @abstractmethod
    def add(self, table: Table) -> Insert:
        """Insert whole rows."""

    @abstractmethod
    def save_counters(self) -> ClauseElement: ...

    @abstractmethod
    def add_counters(self) -> ClauseElement | None: ...

    @abstractmethod
    def listed(self, values: Sequence[str]) -> Any: ...

    @abstractmethod
    def rows(self, rows: Sequence[Sequence[Any]]) -> Any: ...

    @abstractmethod
    def read(self, statement: Select[Any]) -> str:
        """The text of a SELECT whose result goes through `fetched`."""

    @abstractmethod
    def fetched(self, result: CursorResult[Any]) -> Sequence[Sequence[Any]]: ...

    @abstractmethod
    def widened(self, sql: str, rows: int) -> str: ...

    def statements(self) -> Statements:
        counter, hold = self.counter, self.hold
        counters = select(counter).where(self.among(counter.c.key))
        ids = self.among(hold.c.id)
        moving = update(hold).where(hold.c.id == bindparam("at"))
        amounts: dict[str, Any] = {name: bindparam(f"n_{name}") for name in HELD}
        adding = self.add_counters()
        return Statements(
            counters=self.read(counters.order_by(counter.c.key).with_for_update()),
            peek=self.read(counters),
            add_counters=None if adding is None else self.sql(adding),
            save_counters=self.sql(self.save_counters()),
            holds=self.read(select(hold).where(ids).order_by(hold.c.id).with_for_update()),
            holds_and_due=self.read(
                select(hold).where(self.among_or_due()).order_by(hold.c.id).with_for_update()
            ),
            add_holds=self.sql(self.add(hold)),
            save_hold=self.sql(moving.values(lease_until_us=bindparam("l"), expired_us=bindparam("e"))),
            top_up=self.sql(moving.values(amounts)),
            delete_holds=self.sql(delete(hold).where(ids)),
            delete_counters=self.sql(delete(counter).where(self.among(counter.c.key))),
            listed=self.listed,
            rows=self.rows,
            widened=self.widened,
            fetched=self.fetched,
        )


class _SQLite(_Compiler):
    """A list is a JSON text, rows are many VALUES. The caller's BEGIN IMMEDIATE is the only lock.

    One statement for all rows, and one row of JSON for what is read, since the driver gives up the
    interpreter lock at every step.
    """

    def read(self, statement: Select[Any]) -> str:
        columns = ", ".join(statement.selected_columns.keys())
        return f"SELECT json_group_array(json_array({columns})) FROM ({self.sql(statement)})"  # noqa: S608

    def fetched(self, result: CursorResult[Any]) -> Sequence[Sequence[Any]]:
        return json.loads(result.scalar_one())

    def listed(self, values: Sequence[str]) -> str:
        return json.dumps(values)

    def rows(self, rows: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        return tuple(chain.from_iterable(rows))

    def widened(self, sql: str, rows: int) -> str:
        before, marks, after = _ONE_ROW.split(sql, maxsplit=1)
        return before + ", ".join([marks] * rows) + after

    def sql(self, statement: ClauseElement) -> str:
        return str(statement.compile(dialect=sqlite.dialect(paramstyle="qmark")))

    def among(self, column: Column[Any]) -> ColumnElement[bool]:
        each = func.json_each(bindparam("among", type_=Text)).table_valued("value")
        return column.in_(select(each.c.value))

    def among_or_due(self) -> ColumnElement[bool]:
        # An OR would make SQLite read the whole table.
        each = func.json_each(bindparam("among", type_=Text)).table_valued("value")
        due = select(self.hold.c.id).where(self.hold.c.lease_until_us <= bindparam("due"))
        return self.hold.c.id.in_(select(each.c.value).union_all(due))

    def add(self, table: Table) -> sqlite.Insert:
        return sqlite.insert(table)

    def save_counters(self) -> ClauseElement:
        adding = self.add(self.counter)
        new = {name: adding.excluded[name] for name in self.counter.c.keys() if name != "key"}  # noqa: SIM118
        return adding.on_conflict_do_update(index_elements=["key"], set_=new)

    def add_counters(self) -> None:
        return None


class _PostgreSQL(_Compiler):
    """A list is an array; rows are one array per column, so that a batch is one statement and one trip."""

    def listed(self, values: Sequence[str]) -> list[str]:
        return list(values)

    def read(self, statement: Select[Any]) -> str:
        return self.sql(statement)

    def fetched(self, result: CursorResult[Any]) -> Sequence[Sequence[Any]]:
        return result.fetchall()

    def rows(self, rows: Sequence[Sequence[Any]]) -> tuple[list[Any], ...]:
        return tuple(list(column) for column in zip(*rows, strict=True))

    def widened(self, sql: str, rows: int) -> str:
        return sql

    def sql(self, statement: ClauseElement) -> str:
        return str(statement.compile(dialect=postgresql.psycopg.dialect(paramstyle="format")))

    def among(self, column: Column[Any]) -> ColumnElement[bool]:
        return column == any_(_array("among", column))

    def among_or_due(self) -> ColumnElement[bool]:
        # Both indexes are used, and a hold renewed while its lock was awaited is left out.
        return or_(self.among(self.hold.c.id), self.hold.c.lease_until_us <= bindparam("due"))

    def add(self, table: Table) -> postgresql.Insert:
        columns = [func.unnest(_array(f"new_{column.name}", column)) for column in table.columns]
        return postgresql.insert(table).from_select(list(table.columns.keys()), select(*columns))

    def save_counters(self) -> ClauseElement:
        adding = self.add(self.counter)
        new = {name: adding.excluded[name] for name in self.counter.c.keys() if name != "key"}  # noqa: SIM118
        return adding.on_conflict_do_update(index_elements=["key"], set_=new)

    def add_counters(self) -> ClauseElement:
        keys = select(func.unnest(_array("among", self.counter.c.key)))
        adding = postgresql.insert(self.counter).from_select(["key"], keys)
        return adding.on_conflict_do_nothing().returning(self.counter.c.key)


def _array(name: str, column: Column[Any]) -> BindParameter[Any]:
    return bindparam(name, type_=ARRAY(column.type))


_COMPILERS: dict[str, type[_Compiler]] = {"sqlite": _SQLite, "postgresql": _PostgreSQL}
