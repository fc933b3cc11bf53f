"""What conversations held when their calls ended, and the traces that runs were seen in: found, forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, Table, bindparam, select

from llm_proxy.records.audit_tables import prefixes, traces
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import calls

KEPT_US = 7 * 86_400 * 1_000_000
"""How long after its last call a conversation is still gone on with, and a trace is known."""
_MOST = 64
"""Ends, and runs of a trace, that are looked at."""
_MOST_SPANS = 500
"""The newest calls of a trace's runs among which a span's is looked for."""


class End(NamedTuple):
    """Where a conversation stood when a call ended. `newest`: the newest call of its run by now."""

    hash: bytes
    call_id: str
    run_id: str
    system: bytes
    newest: str


def load_ends(connection: Connection, agent_id: str, key_id: str, hashes: Sequence[bytes]) -> list[End]:
    """The ends with the first of these hashes to which calls under this credential came, the newest first."""
    for hash_ in hashes:
        rows = connection.execute(_ENDS, {"agent": agent_id, "key": key_id, "hash": hash_}).all()
        if rows:
            return [
                End(hash_, call, run, bytes(system), max(call, last or ""))
                for call, run, system, last in rows
            ]
    return []


def _ends() -> Select[Any, Any, Any, Any]:
    p, c = prefixes.c, calls.c
    newest = (
        select(c.id)
        .where(c.run_id == p.run_id, c.agent_id == p.agent_id)
        .order_by(c.started_us.desc())
        .limit(1)
        .scalar_subquery()
    )
    mine = p.agent_id == bindparam("agent"), p.key_id == bindparam("key"), p.hash == bindparam("hash")
    return select(p.call_id, p.run_id, p.system, newest).where(*mine).order_by(p.call_id.desc()).limit(_MOST)


_ENDS = _ends()


def run_above(connection: Connection, trace_id: bytes, span_id: bytes, run: RunKey) -> RunKey | None:
    """The run, other than `run`, of whose call this is the span; else the first that was seen in the trace.

    None where `run` itself came first. Spans' ids follow from those of their calls (see `telemetry.ids`).
    """
    t = traces.c
    query = select(t.agent_id, t.run_id).where(t.trace_id == trace_id).order_by(t.at_us, t.agent_id, t.run_id)
    seen = [RunKey(agent, id_) for agent, id_ in connection.execute(query.limit(_MOST))]
    others = [key for key in seen if key != run]
    if not others:
        return None
    spans = (
        select(calls.c.agent_id, calls.c.run_id, calls.c.id)
        .where(calls.c.run_id.in_([key.run_id for key in others]))
        .order_by(calls.c.id.desc())
        .limit(_MOST_SPANS)
    )
    for agent, id_, call in connection.execute(spans):
        key = RunKey(agent, id_)
        if key in others and hashlib.sha256(call.encode()).digest()[:8] == span_id:
            return key
    return None if seen[0] == run else seen[0]


def forget(connection: Connection, before_us: int, at_most: int) -> int:
    """Deletes about `at_most` of the oldest rows from before, of each table; returns how many."""
    return sum([_forget(connection, table, before_us, at_most) for table in (prefixes, traces)])


def old(connection: Connection, before_us: int) -> bool:
    """Whether there are rows from before: read first, so that no writer is kept waiting for nothing."""
    found = [
        connection.execute(select(table.c.at_us).where(table.c.at_us < before_us).limit(1)).first()
        for table in (prefixes, traces)
    ]
    return any(row is not None for row in found)


def _forget(connection: Connection, table: Table, before_us: int, at_most: int) -> int:
    at = table.c.at_us
    last = connection.execute(
        select(at).where(at < before_us).order_by(at).limit(1).offset(at_most - 1)
    ).scalar()
    until = at < before_us if last is None else at <= last
    return connection.execute(table.delete().where(until)).rowcount
