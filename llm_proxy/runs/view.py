"""A run as its agent sees it: how it stands, what is left of it, and the runs below it."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection

from budgets import LimitBook
from budgets.amounts import MICRO
from llm_proxy.records.runstate import RunKey
from llm_proxy.runs.effects import MOST_SHOWN, Effect, effects_of
from llm_proxy.runs.placed import iso
from llm_proxy.runs.rows import StoredRun, children, sum_calls
from llm_proxy.runs.status import RunStatus, Use, standing
from llm_proxy.runs.wish import Trigger

MOST_CHILDREN = 100


class RunName(msgspec.Struct, frozen=True, kw_only=True):
    """A run id is scoped to its agent."""

    agent_id: str
    run_id: str


class Child(RunName, frozen=True, kw_only=True):
    purpose: str
    status: RunStatus


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    open: int
    refused: int
    failed: int


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /v1/runs/{id}` answers. Money is in dollars; times are ISO 8601 and Unix microseconds."""

    run_id: str
    agent_id: str
    status: RunStatus
    why: str
    purpose: str
    trigger: Trigger | None
    parent: RunName | None
    user: str
    started_us: int
    started_at: str
    expires_us: int | None
    expires_at: str | None
    """Its own end, or that of a run above it where that comes first."""
    ended_us: int | None
    ended_at: str | None
    envelope: dict[str, Any] | None
    left: dict[str, float | int]
    """By unit: the least that its envelope, those above it and the limits per run leave."""
    limits: tuple[Use, ...]
    children: tuple[Child, ...]
    """The last begun first, at most a hundred."""
    calls: Calls
    """Its own, less those of the runs below it."""
    cost_usd: float
    cost_micro_usd: int
    effects: tuple[Effect, ...] = ()
    """Side effects that were reported, the last hundred."""


def view_of(connection: Connection, book: LimitBook, key: RunKey, now_us: int) -> RunView | None:
    """None where no such run is there."""
    found = standing(connection, book, key, now_us)
    if found is None:
        return None
    run = found.run
    sums = sum_calls(connection, key)
    return RunView(
        run_id=run.run_id,
        agent_id=run.agent_id,
        status=found.status,
        why=found.why,
        purpose=run.purpose,
        trigger=found.trigger,
        parent=RunName(agent_id=run.parent_agent_id, run_id=run.parent_run_id) if run.parent else None,
        user=run.user_id,
        started_us=run.started_us,
        started_at=iso(run.started_us),
        expires_us=found.expires_us,
        expires_at=iso(found.expires_us) if found.expires_us is not None else None,
        ended_us=run.ended_us,
        ended_at=iso(run.ended_us) if run.ended_us is not None else None,
        envelope=found.envelope,
        left=found.left,
        limits=found.uses,
        children=tuple([_child(child, now_us) for child in children(connection, key, MOST_CHILDREN)]),
        calls=Calls(total=sums.total, open=sums.open, refused=sums.refused, failed=sums.failed),
        cost_usd=sums.cost_micro_usd / MICRO,
        cost_micro_usd=sums.cost_micro_usd,
        effects=effects_of(connection, key, MOST_SHOWN),
    )


def _child(run: StoredRun, now_us: int) -> Child:
    status = RunStatus.OPEN
    if run.ended_us is not None:
        status = RunStatus.ENDED
    elif run.expires_us is not None and run.expires_us <= now_us:
        status = RunStatus.EXPIRED
    return Child(agent_id=run.agent_id, run_id=run.run_id, purpose=run.purpose, status=status)
