"""What an agent never saw of a run's replies, as it is looked up for the run's next request."""

from __future__ import annotations

from sqlalchemy import Connection, select

from llm_proxy.records.policy_tables import unseen
from llm_proxy.records.runstate import RunKey


def load_unseen(connection: Connection, run: RunKey, most: int) -> dict[str, bytes]:
    """The oldest `most` rows of `run`, by key."""
    query = (
        select(unseen.c.key, unseen.c.body)
        .where(unseen.c.agent_id == run.agent_id, unseen.c.run_id == run.run_id)
        .order_by(unseen.c.at_us, unseen.c.key)
        .limit(most)
    )
    return {key: bytes(body) for key, body in connection.execute(query)}
