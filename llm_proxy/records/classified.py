"""Values of classified fields that came into a run, as they are looked up for its replies."""

from __future__ import annotations

from sqlalchemy import Connection, select

from llm_proxy.records.policy_rows import ClassifiedRow
from llm_proxy.records.policy_tables import classified
from llm_proxy.records.runstate import RunKey


def load_classified(connection: Connection, run: RunKey) -> list[ClassifiedRow]:
    """What is kept of the values that came into `run`."""
    query = select(*[classified.c[name] for name in ClassifiedRow._fields]).where(
        classified.c.agent_id == run.agent_id, classified.c.run_id == run.run_id
    )
    return [ClassifiedRow(*row)._replace(token=bytes(row.token)) for row in connection.execute(query)]
