"""The ledger in SQL, inside a transaction of the caller's: load, decide, save."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, Engine, select

from budgets.amounts import Amount
from budgets.decide import Decision, OnDrift, StoredHold, decide, needs, raise_drift
from budgets.ledger import Counter, Op, Result
from budgets.limits import LimitBook
from budgets.sql_statements import statements
from budgets.sql_tables import METADATA, TABLES, LedgerTables, tables
from budgets.tightest import WIDTH
from budgets.watching import Watch
from budgets.windows import ended_us

__all__ = ["METADATA", "TABLES", "Ended", "LedgerTables", "SqlLedger", "SqlStore", "tables"]

_MOST_KEYS_KNOWN = 50_000
_MOST_ROWS = 1_000
"""Rows in one statement: SQLite takes 32,766 parameters."""
_AMOUNT_END = 2 + WIDTH
_FLOOR_END = _AMOUNT_END + WIDTH


class Ended(NamedTuple):
    """One step through the counters: those whose span is over. The next begins after `last`, which is empty
    where none is left."""

    keys: list[str]
    last: str


class SqlLedger:
    """Applies batches of operations in a transaction that the caller began, and commits or rolls back.

    Of the limits `watched`, reaching a level is reported. On SQLite the caller has begun the transaction with
    BEGIN IMMEDIATE. On PostgreSQL, at READ COMMITTED, rows are locked in one order everywhere: holds by id,
    then counters by key, after creating those that are missing.
    """

    def __init__(
        self,
        dialect: Dialect,
        tables: LedgerTables = TABLES,
        on_drift: OnDrift = raise_drift,
        watched: LimitBook | None = None,
    ) -> None:
        self._tables = tables
        self._sql = statements(dialect, tables)
        self._on_drift = on_drift
        self._watch = Watch(watched) if watched is not None else None
        self._known: OrderedDict[str, None] = OrderedDict()

    def apply(self, conn: Connection, ops: Sequence[Op], now_us: int) -> list[Result]:
        """Do `ops` in order at `now_us` (Unix µs): one result each. Where it raises, roll back."""
        watch = self._watch
        wanted = needs(ops, now_us, watch)
        holds = self._load_holds(conn, wanted.holds, wanted.due_us)
        wanted.counters_of(holds.values(), watch, now_us)
        counters = self._load_counters(conn, wanted.keys, wanted.beside) if wanted.keys else {}
        decision = decide(ops, counters, holds, now_us, self._on_drift, watch)
        self._save(conn, decision)
        return decision.results

    def peek(self, conn: Connection, keys: Iterable[str]) -> dict[str, Counter]:
        """The counters under `keys` that were ever written; locks nothing."""
        sql = self._sql
        rows = sql.fetched(conn.exec_driver_sql(sql.peek, (sql.listed(list(keys)),)))
        return {row[0]: Counter(Amount(*row[1 : 1 + WIDTH]), Amount(*row[1 + WIDTH :])) for row in rows}

    def ended(self, conn: Connection, before_us: int, after: str = "", most: int = 1_000) -> Ended:
        """Of the `most` counters that follow the key `after`, those of minutes, hours and rolling windows
        whose span ended before `before_us` (Unix µs); locks nothing."""
        key = self._tables.counters.c.key
        found = list(conn.execute(select(key).where(key > after).order_by(key).limit(most)).scalars())
        ended = [key for key in found if (end := ended_us(key)) is not None and end < before_us]
        return Ended(ended, found[-1] if len(found) == most else "")

    def purge(self, conn: Connection, keys: Iterable[str]) -> int:
        """Delete those of the counters `keys`, which have `ended`, in which nothing is held; returns how many
        were there."""
        sql = self._sql
        idle = [key for key, cell in self._locked(conn, sorted(keys)).items() if not any(cell[WIDTH:])]
        if idle:
            conn.exec_driver_sql(sql.delete_counters, (sql.listed(idle),))
        return len(idle)

    def _load_holds(self, conn: Connection, ids: set[str], due_us: int | None) -> dict[str, StoredHold]:
        sql = self._sql
        if due_us is not None:
            found = conn.exec_driver_sql(sql.holds_and_due, (sql.listed(sorted(ids)), due_us))
        elif ids:
            found = conn.exec_driver_sql(sql.holds, (sql.listed(sorted(ids)),))
        else:
            return {}
        return {row[0]: _stored(row) for row in sql.fetched(found)}

    def _load_counters(
        self, conn: Connection, wanted: set[str], beside: set[str]
    ) -> dict[str, Sequence[int]]:
        """Those of `wanted`, which exist from then on, and those of `beside` that exist; all locked."""
        sql = self._sql
        keys = sorted(wanted)
        if sql.add_counters is not None:
            self._create(conn, sql.add_counters, [key for key in keys if key not in self._known])
        found = self._locked(conn, sorted(wanted | beside) if beside else keys)
        if sql.add_counters is not None and (lost := [key for key in keys if key not in found]):
            # Rows once seen were deleted, or the transaction that created them was rolled back.
            self._create(conn, sql.add_counters, lost)
            found |= self._locked(conn, lost)
        return found

    def _locked(self, conn: Connection, keys: list[str]) -> dict[str, Sequence[int]]:
        """The counters under `keys`, in order of key, that exist."""
        if not keys:
            return {}
        sql = self._sql
        rows = sql.fetched(conn.exec_driver_sql(sql.counters, (sql.listed(keys),)))
        return {row[0]: row[1:] for row in rows}

    def _create(self, conn: Connection, add_counters: str, keys: list[str]) -> None:
        """Make sure that counters exist. Only those which others committed are remembered as existing: the
        ones created here may yet be rolled back."""
        if not keys:
            return
        created = {row[0] for row in conn.exec_driver_sql(add_counters, (self._sql.listed(keys),))}
        known = self._known
        for key in keys:
            if key in created:
                known.pop(key, None)
            else:
                known[key] = None
        while len(known) > _MOST_KEYS_KNOWN:
            known.popitem(last=False)

    def _save(self, conn: Connection, decision: Decision) -> None:
        sql = self._sql
        if decision.counters:
            # In order of key, so that no two transactions create the same counters crosswise.
            rows = [(key, *cell) for key, cell in sorted(decision.counters.items())]
            self._save_rows(conn, sql.save_counters, rows)
        if decision.opened:
            self._save_rows(conn, sql.add_holds, [_row(hold) for hold in decision.opened.values()])
        if decision.closed:
            conn.exec_driver_sql(sql.delete_holds, (sql.listed(decision.closed),))
        if decision.changed:
            changed = [(hold.lease_until_us, hold.expired_us, hold.id) for hold in decision.changed.values()]
            conn.exec_driver_sql(sql.save_hold, changed)
        if decision.topped_up:
            conn.exec_driver_sql(sql.top_up, [(*figures, id_) for id_, figures in decision.topped_up.items()])

    def _save_rows(self, conn: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        sql = self._sql
        for start in range(0, len(rows), _MOST_ROWS):
            some = rows[start : start + _MOST_ROWS]
            conn.exec_driver_sql(sql.widened(statement, len(some)), sql.rows(some))


class SqlStore:
    """A `LedgerStore` that gives each batch a transaction of its own, from an engine whose transactions
    begin as `SqlLedger` demands. The tables exist."""

    def __init__(self, engine: Engine, watched: LimitBook | None = None) -> None:
        self._engine = engine
        self._ledger = SqlLedger(engine.dialect, watched=watched)

    def apply(self, ops: Sequence[Op], now_us: int) -> list[Result]:
        with self._engine.begin() as conn:
            return self._ledger.apply(conn, ops, now_us)

    def peek(self, keys: Iterable[str]) -> dict[str, Counter]:
        with self._engine.begin() as conn:
            return self._ledger.peek(conn, keys)


def _stored(row: Sequence[Any]) -> StoredHold:
    return StoredHold(
        row[0],
        tuple(json.loads(row[1])),
        tuple(row[2:_AMOUNT_END]),
        tuple(row[_AMOUNT_END:_FLOOR_END]),
        *row[_FLOOR_END:],
    )


def _row(hold: StoredHold) -> tuple[Any, ...]:
    return (hold.id, json.dumps(hold.keys), *hold.amount, *hold.floor, *hold[4:])
