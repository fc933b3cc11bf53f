"""What an agent never saw of a run's replies, as it is looked up for the run's next request."""

from __future__ import annotations

from collections.abc import Callable, Set

import msgspec
from sqlalchemy import Connection, func, select

from llm_proxy.records.evidence import Evidence
from llm_proxy.records.policy_rows import UnseenRow
from llm_proxy.records.policy_tables import unseen
from llm_proxy.records.runstate import RunKey

MOST = 64
"""Rows of one run."""


def load_unseen(connection: Connection, run: RunKey, wanted: Set[str]) -> dict[str, bytes]:
    """Rows of `run` by key: those `wanted` that are among its oldest `MOST`."""
    mine = unseen.c.agent_id == run.agent_id, unseen.c.run_id == run.run_id
    oldest = select(unseen.c.key).where(*mine).order_by(unseen.c.at_us, unseen.c.key).limit(MOST)
    keys = [key for key in connection.execute(oldest).scalars() if key in wanted]
    if not keys:
        return {}
    query = select(unseen.c.key, unseen.c.body).where(*mine, unseen.c.key.in_(keys))
    return {key: bytes(body) for key, body in connection.execute(query)}


def room_for(row: UnseenRow | None) -> Callable[[Connection], bool] | None:
    """What tells whether the run of `row` may have one more, for a job's `look`; None where none is written.

    Calls of one run that end in the same transaction don't see each other's rows.
    """
    if row is None:
        return None
    query = select(func.count()).select_from(unseen)
    query = query.where(unseen.c.agent_id == row.agent_id, unseen.c.run_id == row.run_id)
    return lambda connection: connection.execute(query).scalar_one() < MOST


def with_room(evidence: Evidence, room: bool | None) -> Evidence:  # noqa: FBT001 (what a job's look saw)
    """`evidence` without its rows where there is no room for them."""
    return msgspec.structs.replace(evidence, unseen=()) if room is False else evidence
