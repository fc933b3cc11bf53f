"""The verdict on one tool call, found by the run and the id under which the agent knows the call."""

from __future__ import annotations

from sqlalchemy import Connection, select

from llm_proxy.receipts.issue import Committed
from llm_proxy.records import bodies
from llm_proxy.records.evidence import RecordKind, tool_call_key
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import records, tool_calls
from llm_proxy.records.view import Decision


def find_verdict(connection: Connection, run: RunKey, tool_call_id: str) -> Committed | None:
    """The newest of that id, if any: ids are unique within a reply, not within a run."""
    c = tool_calls.c
    query = (
        select(c.call_id, c.choice, c.position, c.digest, c.at_us)
        .where(c.agent_id == run.agent_id, c.run_id == run.run_id)
        .where(c.tool_call_id == tool_call_key(tool_call_id))
        .order_by(c.at_us.desc(), c.call_id.desc(), c.position.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    if row is None:
        return None
    call_id, choice, position, digest, at_us = row
    for decision in _decisions(connection, call_id):
        if (decision.choice, decision.index) == (choice, position):
            return Committed(run.agent_id, run.run_id, call_id, decision, digest, at_us)
    return None


def _decisions(connection: Connection, call_id: str) -> list[Decision]:
    r = records.c
    query = select(r.body).where(r.call_id == call_id, r.kind == RecordKind.VERDICTS.value)
    found = connection.execute(query.order_by(r.at_us.desc(), r.seq.desc())).scalars()
    return [decision for body in found for decision in bodies.read_verdicts(bytes(body)).decisions]
