"""The report of `llm-proxy posture` and of its twin under `/admin`."""

from __future__ import annotations

from sqlalchemy import Connection

from llm_proxy.admin.reading import find_run
from llm_proxy.config import Config
from llm_proxy.posture.answers import Posture
from llm_proxy.posture.facts import Cut
from llm_proxy.posture.gathering import gather
from llm_proxy.posture.questions import posture

MOST_DAYS = 3_650


def report(
    config: Config,
    connection: Connection | None,
    now_us: int,
    *,
    days: int,
    run: str | None = None,
    agent: str | None = None,
    cut: Cut | None = None,
    store_problem: str = "",
) -> Posture:
    """Raises `NotFound` or `Unclear` for a run that is no one run, and `PolicyErrors`."""
    key = None
    if run is not None and connection is not None:
        found = find_run(connection, run, agent)
        key = (found.agent_id, found.run_id)
    facts = gather(config, connection, now_us, days=days, run=key, cut=cut, store_problem=store_problem)
    return posture(facts)
