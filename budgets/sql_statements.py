"""The SQL ledger's statements, compiled once per dialect so that a batch only binds and runs them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Column,
    ColumnElement,
    Dialect,
    Insert,
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

from budgets.sql_tables import TABLES, LedgerTables

Listed = Callable[[Sequence[str]], Any]
Rows = Callable[[Sequence[Sequence[Any]]], Any]


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
    delete_holds: str
    """[ids]"""
    listed: Listed
    rows: Rows


def statements(dialect: Dialect, tables: LedgerTables = TABLES) -> Statements:
    """The statements for SQLite or PostgreSQL. Raises ValueError for any other database."""
    compiler = _COMPILERS.get(dialect.name)
    if compiler is None:
        raise ValueError(f"a ledger can't be kept in {dialect.name!r}: use sqlite or postgresql")
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

    def statements(self) -> Statements:
        counter, hold = self.counter, self.hold
        counters = select(counter).where(self.among(counter.c.key))
        ids = self.among(hold.c.id)
        due = or_(ids, hold.c.lease_until_us <= bindparam("due"))
        moving = update(hold).where(hold.c.id == bindparam("at"))
        adding = self.add_counters()
        return Statements(
            counters=self.sql(counters.order_by(counter.c.key).with_for_update()),
            peek=self.sql(counters),
            add_counters=None if adding is None else self.sql(adding),
            save_counters=self.sql(self.save_counters()),
            holds=self.sql(select(hold).where(ids).order_by(hold.c.id).with_for_update()),
            holds_and_due=self.sql(select(hold).where(due).order_by(hold.c.id).with_for_update()),
            add_holds=self.sql(self.add(hold)),
            save_hold=self.sql(moving.values(lease_until_us=bindparam("l"), expired_us=bindparam("e"))),
            delete_holds=self.sql(delete(hold).where(ids)),
            listed=self.listed,
            rows=self.rows,
        )


class _SQLite(_Compiler):
    """A list is a JSON text, rows are run one by one. The caller's BEGIN IMMEDIATE is the only lock."""

    def listed(self, values: Sequence[str]) -> str:
        return json.dumps(values)

    def rows(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        return rows

    def sql(self, statement: ClauseElement) -> str:
        return str(statement.compile(dialect=sqlite.dialect(paramstyle="qmark")))

    def among(self, column: Column[Any]) -> ColumnElement[bool]:
        each = func.json_each(bindparam("among", type_=Text)).table_valued("value")
        return column.in_(select(each.c.value))

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

    def rows(self, rows: Sequence[Sequence[Any]]) -> tuple[list[Any], ...]:
        return tuple(list(column) for column in zip(*rows, strict=True))

    def sql(self, statement: ClauseElement) -> str:
        return str(statement.compile(dialect=postgresql.psycopg.dialect(paramstyle="format")))

    def among(self, column: Column[Any]) -> ColumnElement[bool]:
        return column == any_(_array("among", column))

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
