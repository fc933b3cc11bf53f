"""Which runs a listing shows: by who, with what, how they were judged, and how they ended."""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement, and_, func, or_, select

from llm_proxy.records.tables import agents, calls, runs, tool_calls

ASK = "ask"


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """None: any. Times are Unix µs of the run's begin, money micro-dollars; `before` a run's begin and id."""

    agent: str | None = None
    run: str | None = None
    user: str | None = None
    model: str | None = None
    tool: str | None = None
    decision: str | None = None
    rule: str | None = None
    error: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    min_micro_usd: int | None = None
    ended: bool = False
    frozen: bool = False
    """Of agents that are frozen now."""
    words: str | None = None
    """In one text of one of its calls, as a search takes them."""
    before: tuple[int, str] | None = None


def conditions(wanted: RunFilter) -> list[ColumnElement[bool]]:
    """What rows of `state_runs` must fulfil; words, rules and asks are looked up by `run_words`."""
    c = runs.c
    found: list[ColumnElement[bool]] = [
        column == value
        for column, value in ((c.agent_id, wanted.agent), (c.run_id, wanted.run), (c.user_id, wanted.user))
        if value is not None
    ]
    if wanted.since_us is not None:
        found.append(c.started_us >= wanted.since_us)
    if wanted.until_us is not None:
        found.append(c.started_us < wanted.until_us)
    if wanted.before is not None:
        started, run_id = wanted.before
        found.append(c.started_us <= started)
        found.append(or_(c.started_us < started, c.run_id > run_id))
    if wanted.ended:
        found.append(c.ended_us.is_not(None))
    if wanted.frozen:
        frozen = select(agents.c.agent_id).where(agents.c.frozen_us.is_not(None))
        found.append(c.agent_id.in_(frozen))
    return [*found, *_by_calls(wanted), *_by_verdicts(wanted)]


def _by_calls(wanted: RunFilter) -> list[ColumnElement[bool]]:
    mine = and_(calls.c.run_id == runs.c.run_id, calls.c.agent_id == runs.c.agent_id)
    found: list[ColumnElement[bool]] = []
    if wanted.model is not None:
        found.append(select(calls.c.run_id).where(mine, calls.c.model == wanted.model).exists())
    if wanted.error is not None:
        failed = or_(calls.c.error == wanted.error, calls.c.status == wanted.error)
        found.append(select(calls.c.run_id).where(mine, failed).exists())
    if wanted.min_micro_usd is not None:
        spent = select(func.coalesce(func.sum(calls.c.micro_usd), 0)).where(mine).scalar_subquery()
        found.append(spent >= wanted.min_micro_usd)
    return found


def _by_verdicts(wanted: RunFilter) -> list[ColumnElement[bool]]:
    t = tool_calls.c
    mine = and_(t.run_id == runs.c.run_id, t.agent_id == runs.c.agent_id)
    tool = [] if wanted.tool is None else [t.tool == wanted.tool]
    judged = select(t.call_id).where(mine, *tool)
    if wanted.decision not in (None, ASK):
        return [judged.where(t.decision == wanted.decision).exists()]
    return [judged.exists()] if tool else []
