"""The statements with which a batch is written, prepared once for the store's dialect."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table, and_, bindparam
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.dml import Insert, Update

from llm_proxy.records import evidence as e
from llm_proxy.records import tables as t
from llm_proxy.records.prepared import Prepared, upsert

_RECORD = ("writer", "seq", "kind", "at_us", "call_id", "run_id", "agent_id", "body", "hash")
_BLOB = ("id", "epoch", "codec", "size", "data")


class Statements:
    """Every way in which a batch changes the store."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.record = self._insert(t.records, _RECORD)
        self.blob = self._insert(t.blobs, _BLOB, ignore=True)
        self.call_open = self._insert(t.calls, e.CallOpen._fields)
        self.call_close = self._update(t.calls, e.CallClose._fields, keys=("id",))
        self.run_open = self._insert(t.runs, e.RunOpen._fields, ignore=True)
        self.run_update = self._update(t.runs, e.RunUpdate._fields, keys=("agent_id", "run_id"))
        self.tool_call = self._insert(t.tool_calls, e.ToolCallRow._fields)
        self.answered = self._update(
            t.tool_calls, e.Answered._fields, keys=("agent_id", "run_id", "tool_call_id")
        )
        self.key = self._insert(t.keys, e.KeyRow._fields)
        self.revoked = self._update(t.keys, e.KeyRevoked._fields, keys=("id",))
        self.refusal = Prepared(self._refusal(), dialect)
        self.head = self._update(t.writers, ("seen_us", "head_seq", "head_hash", "writer"), keys=("writer",))

    def write(self, connection: Connection, pieces: list[e.Evidence]) -> None:
        """Everything but records and blobs, which the writer numbers and compresses first."""
        plan: tuple[tuple[Prepared, list[tuple[Any, ...]]], ...] = (
            (self.run_open, [row for p in pieces for row in p.runs]),
            (self.call_open, [row for p in pieces for row in p.opens]),
            (self.call_close, [row for p in pieces for row in p.closes]),
            (self.run_update, [row for p in pieces for row in p.run_updates]),
            (self.tool_call, [row for p in pieces for row in p.tool_calls]),
            (self.answered, [row for p in pieces for row in p.answered]),
            (self.key, [row for p in pieces for row in p.keys]),
            (self.revoked, [row for p in pieces for row in p.revoked]),
            (self.refusal, [row for p in pieces for row in p.refusals]),
        )
        for statement, rows in plan:
            statement.run(connection, rows)

    def _insert(self, table: Table, names: tuple[str, ...], *, ignore: bool = False) -> Prepared:
        statement = upsert(table, self._dialect).values({name: bindparam(name) for name in names})
        return self._prepare(statement.on_conflict_do_nothing() if ignore else statement, names)

    def _update(self, table: Table, names: tuple[str, ...], *, keys: tuple[str, ...]) -> Prepared:
        statement = (
            table.update()
            .where(and_(*(table.c[key] == bindparam(f"b_{key}") for key in keys)))
            .values({name: bindparam(name) for name in names if name not in keys})
        )
        return self._prepare(statement, tuple(f"b_{name}" if name in keys else name for name in names))

    def _prepare(self, statement: Insert | Update, names: tuple[str, ...]) -> Prepared:
        prepared = Prepared(statement, self._dialect)
        if prepared.names != names:
            raise AssertionError(f"parameters {prepared.names} are not in the order of {names}")
        return prepared

    def _refusal(self) -> Insert:
        statement = upsert(t.refusals, self._dialect).values(
            minute=bindparam("minute"), reason=bindparam("reason"), count=bindparam("count")
        )
        return statement.on_conflict_do_update(
            index_elements=["minute", "reason"],
            set_={"count": t.refusals.c.count + statement.excluded.count},
        )
