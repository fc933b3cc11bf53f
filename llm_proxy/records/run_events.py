"""What happened in a run that rules may require, such as `human-checkpoint`."""

from __future__ import annotations

from sqlalchemy import Connection, select

from llm_proxy.records.policy_tables import run_events
from llm_proxy.records.runstate import RunKey


def events_of(connection: Connection, run: RunKey) -> dict[str, int]:
    """When each event last happened, in Unix µs, by name."""
    mine = run_events.c.agent_id == run.agent_id, run_events.c.run_id == run.run_id
    query = select(run_events.c.name, run_events.c.at_us).where(*mine)
    return {row.name: row.at_us for row in connection.execute(query)}
