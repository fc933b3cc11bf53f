"""What the store remembers of a run for the policy: labels, and what was proposed, allowed and answered."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, and_, or_, select

from llm_proxy.records.tables import runs, tool_calls


class RunKey(msgspec.Struct, frozen=True, gc=False):
    """A run id is scoped to its agent."""

    agent_id: str
    run_id: str


class JudgedCall(msgspec.Struct, frozen=True, gc=False):
    """A tool call of the run's past. Times are Unix microseconds."""

    tool_call_id: str
    tool: str
    decision: str
    effect: str
    digest: str
    at_us: int
    answered_us: int | None


class RunState(msgspec.Struct, frozen=True):
    """A run as it stood at `revision`. A run that the store doesn't know is at revision 0."""

    revision: int = 0
    started_us: int = 0
    role_at_start: str = ""
    sensitivity: int = 0
    untrusted: bool = False
    labels: tuple[str, ...] = ()
    denials: int = 0
    history: tuple[JudgedCall, ...] = ()


UNKNOWN = RunState()

_labels = msgspec.json.Decoder(tuple[str, ...])


def load_runs(connection: Connection, keys: set[RunKey]) -> dict[RunKey, RunState]:
    """The states of `keys`, read in two statements and locked: no other writer can change them first."""
    found = dict.fromkeys(keys, UNKNOWN)
    if not keys:
        return found
    ordered = sorted(keys, key=lambda key: (key.agent_id, key.run_id))
    is_run = or_(*(and_(runs.c.agent_id == k.agent_id, runs.c.run_id == k.run_id) for k in ordered))
    query = select(runs).where(is_run).order_by(runs.c.agent_id, runs.c.run_id).with_for_update()
    rows = connection.execute(query).all()
    history = _histories(connection, ordered)
    for row in rows:
        key = RunKey(row.agent_id, row.run_id)
        found[key] = RunState(
            revision=row.revision,
            started_us=row.started_us,
            role_at_start=row.role_at_start,
            sensitivity=row.sensitivity,
            untrusted=row.untrusted,
            labels=_labels.decode(row.labels),
            denials=row.denials,
            history=tuple(history.get(key, ())),
        )
    return found


def _histories(connection: Connection, keys: list[RunKey]) -> dict[RunKey, list[JudgedCall]]:
    c = tool_calls.c
    of_run = or_(*(and_(c.agent_id == k.agent_id, c.run_id == k.run_id) for k in keys))
    query = select(tool_calls).where(of_run).order_by(c.at_us, c.call_id, c.choice, c.position)
    histories: dict[RunKey, list[JudgedCall]] = {}
    for row in connection.execute(query):
        judged = JudgedCall(
            row.tool_call_id, row.tool, row.decision, row.effect, row.digest, row.at_us, row.answered_us
        )
        histories.setdefault(RunKey(row.agent_id, row.run_id), []).append(judged)
    return histories
