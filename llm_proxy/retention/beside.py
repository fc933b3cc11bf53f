"""What else holds something of what was said, beside the content itself, and goes when its day goes.

Held runs keep theirs. Ends of conversations and traces are cleared by `records.purge`, deliveries that hold
no arguments by their sender.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, func, select

from llm_proxy.records.approvals import ApprovalStatus
from llm_proxy.records.policy_tables import approvals, classified, unseen
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import calls, dead_letters, deliveries

Held = frozenset[RunKey]
AT_A_TIME = 500


def cleared(connection: Connection, cutoff_us: int, held: Held) -> int:
    """Deletes some of what is older than `cutoff_us` (Unix µs); how many rows, 0 once there are none."""
    for clear in _CLEARED:
        if changed := clear(connection, cutoff_us, held):
            return changed
    return 0


def unseen_cleared(connection: Connection, cutoff_us: int, held: Held) -> int:
    """The same of calls that agents never saw, which are put back where their reply comes back."""
    return _UNSEEN(connection, cutoff_us, held)


def deliveries_cleared(connection: Connection, cutoff_us: int, held: Held) -> int:
    """The same of what was sent to webhooks that want content."""
    return _deliveries(connection, cutoff_us, held)


def blanked(connection: Connection, held: Held) -> int:
    """Takes the arguments out of approvals that are decided, or past their time: nobody need see them now."""
    c = approvals.c
    return _blank(connection, c.status != ApprovalStatus.PENDING.value, held)


def _approvals(connection: Connection, cutoff_us: int, held: Held) -> int:
    return _blank(connection, approvals.c.requested_us < cutoff_us, held)


def _blank(connection: Connection, which: ColumnElement[bool], held: Held) -> int:
    c = approvals.c
    query = select(c.id, c.agent_id, c.run_id).where(c.arguments != "", which).limit(AT_A_TIME + _MOST_KEPT)
    rows = connection.execute(query)
    ids = [row.id for row in rows if RunKey(row.agent_id, row.run_id) not in held][:AT_A_TIME]
    if ids:
        connection.execute(approvals.update().where(c.id.in_(ids)).values(arguments=""))
    return len(ids)


_MOST_KEPT = 100_000
"""Rows of held runs that are passed over."""


def _by_run(table: Table) -> Callable[[Connection, int, Held], int]:
    """What a table has of runs, by when it came."""
    agent, run, at = table.c.agent_id, table.c.run_id, table.c.at_us

    def clear(connection: Connection, cutoff_us: int, held: Held) -> int:
        query = select(agent, run).where(at < cutoff_us).distinct().limit(AT_A_TIME + len(held))
        keys = [key for row in connection.execute(query) if (key := RunKey(*row)) not in held][:AT_A_TIME]
        for key in keys:
            mine = and_(agent == key.agent_id, run == key.run_id, at < cutoff_us)
            connection.execute(table.delete().where(mine))
        return len(keys)

    return clear


def _classified(connection: Connection, cutoff_us: int, held: Held) -> int:
    """Values that came into runs, of runs that have had no call since."""
    c = classified.c
    newest = select(func.max(calls.c.started_us))
    newest = newest.where(calls.c.run_id == c.run_id, calls.c.agent_id == c.agent_id).scalar_subquery()
    query = select(c.agent_id, c.run_id).where(newest < cutoff_us).distinct()
    found = connection.execute(query.limit(AT_A_TIME + len(held)))
    keys = [key for row in found if (key := RunKey(*row)) not in held][:AT_A_TIME]
    for key in keys:
        mine = and_(c.agent_id == key.agent_id, c.run_id == key.run_id)
        connection.execute(classified.delete().where(mine))
    return len(keys)


def _dead_letters(connection: Connection, cutoff_us: int, _held: Held) -> int:
    """A backend may quote in its complaint what it was sent."""
    c: Column[str] = dead_letters.c.reason
    old = and_(dead_letters.c.at_us < cutoff_us, c != "")
    return connection.execute(dead_letters.update().where(old).values(reason="")).rowcount


_ARGUMENTS = '"arguments":'
"""In the body of an event that holds them; what is said in a string has its quotes escaped."""


def _deliveries(connection: Connection, cutoff_us: int, _held: Held) -> int:
    """Arguments that a webhook got, or never will. What still waits to be sent goes once it ended."""
    d = deliveries.c
    old = and_(
        d.created_us < cutoff_us, d.ended_us.is_not(None), d.body.contains(_ARGUMENTS, autoescape=True)
    )
    ids = list(connection.execute(select(d.id).where(old).limit(AT_A_TIME)).scalars())
    if not ids:
        return 0
    return connection.execute(deliveries.delete().where(d.id.in_(ids), old)).rowcount


_UNSEEN = _by_run(unseen)
_CLEARED = (
    _approvals,
    _UNSEEN,
    _classified,
    _dead_letters,
    _deliveries,
)
