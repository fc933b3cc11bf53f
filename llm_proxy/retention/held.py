"""Runs under a legal hold, and the content that they need.

A hold covers the run, and every run below it at the time of the sweep: also those that only say so (a trace
link), since keeping too much is the lesser fault.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, func, select

from llm_proxy.archive.calls import addresses_of_calls
from llm_proxy.records.audit_tables import legal_holds
from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import calls, runs

MOST_RUNS = 200_000
"""Runs under holds that a sweep takes in."""
_AT_ONCE = 500


class TooManyHeld(Exception):
    """More runs are held than a sweep can know: nothing is deleted."""


class Holds(NamedTuple):
    """How the holds stand: equal as long as none was placed or released."""

    standing: int
    placed_us: int
    released_us: int
    """When one last was; 0 where none ever was."""


def holds(connection: Connection) -> Holds:
    c = legal_holds.c
    standing = func.count().filter(c.released_us.is_(None))
    placed, released = func.max(c.placed_us), func.max(c.released_us)
    row = connection.execute(select(standing, placed, released)).one()
    return Holds(row[0], row[1] or 0, row[2] or 0)


def held_runs(connection: Connection) -> frozenset[RunKey]:
    """Those held, and those below them. Raises `TooManyHeld`."""
    c = legal_holds.c
    query = select(c.agent_id, c.run_id).where(c.released_us.is_(None))
    found = {RunKey(*row) for row in connection.execute(query)}
    newest = list(found)
    while newest:
        below: list[RunKey] = []
        for start in range(0, len(newest), _AT_ONCE):
            some = newest[start : start + _AT_ONCE]
            below += [key for key in _below(connection, some) if key not in found]
        found.update(below)
        if len(found) > MOST_RUNS:
            raise TooManyHeld(f"over {MOST_RUNS:,} runs are under legal holds, those below them included")
        newest = list(dict.fromkeys(below))
    return frozenset(found)


def _below(connection: Connection, parents: list[RunKey]) -> list[RunKey]:
    """Runs that name one of the `parents`, as that agent's or as nobody's."""
    r, names = runs.c, {parent.run_id for parent in parents}
    query = select(r.agent_id, r.run_id, r.parent_run_id, r.parent_agent_id)
    query = query.where(r.parent_run_id != "", r.parent_run_id.in_(sorted(names)))
    known = set(parents)
    return [
        RunKey(row.agent_id, row.run_id)
        for row in connection.execute(query)
        if not row.parent_agent_id or RunKey(row.parent_agent_id, row.parent_run_id) in known
    ]


def kept_addresses(connection: Connection, held: frozenset[RunKey], epoch: int) -> set[bytes]:
    """The content of held runs' calls around the day: all of it, whichever day it was stored under."""
    since, until = (epoch - 1) * DAY_US, (epoch + 2) * DAY_US
    found: set[bytes] = set()
    ordered = list(held)
    for start in range(0, len(ordered), _AT_ONCE):
        some = ordered[start : start + _AT_ONCE]
        names, whose = sorted({key.run_id for key in some}), set(some)
        query = select(calls.c.id, calls.c.agent_id, calls.c.run_id)
        query = query.where(calls.c.run_id.in_(names))
        query = query.where(calls.c.started_us >= since, calls.c.started_us < until)
        ids = [row.id for row in connection.execute(query) if RunKey(row.agent_id, row.run_id) in whose]
        for at in range(0, len(ids), _AT_ONCE):
            found |= addresses_of_calls(connection, ids[at : at + _AT_ONCE])
    return found
