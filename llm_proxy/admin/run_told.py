"""Everything that is told of one run: how it stands, its calls, and what stands around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, or_, select

from llm_proxy import wiring
from llm_proxy.admin.approvals import ApprovalLine, approval_lines
from llm_proxy.admin.shapes import ChildRun, RunHappening, RunShown
from llm_proxy.admin.shown import run_shown, usd
from llm_proxy.admin.story import Step, Story
from llm_proxy.archive.approvals import ApprovalFilter
from llm_proxy.archive.calls import call_views
from llm_proxy.archive.listings import RunRow, list_calls, list_runs
from llm_proxy.config import Config
from llm_proxy.records.policy_tables import run_events
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import runs
from llm_proxy.records.times import iso
from llm_proxy.runs.effects import Effect, effects_of
from llm_proxy.runs.status import Standing, standings

AT_ONCE = 8
"""Calls whose bodies are in memory together."""
MOST_CHILDREN = 100
MOST_APPROVALS = 1_000


@dataclass(frozen=True, slots=True)
class RunTold:
    """`steps` are the first calls, with what was new in each, and without the bodies that hold it all."""

    run: RunRow
    standing: Standing
    steps: list[Step]
    effects: tuple[Effect, ...] = ()
    children: tuple[ChildRun, ...] = ()
    approvals: tuple[ApprovalLine, ...] = ()
    events: tuple[RunHappening, ...] = ()

    def shown(self) -> RunShown:
        return run_shown(
            self.run,
            self.standing,
            self.steps,
            self.effects,
            children=self.children,
            approvals=self.approvals,
            events=self.events,
        )


def run_told(config: Config, connection: Connection, run: RunRow, now_us: int, limit: int) -> RunTold:
    """`limit`: at most so many calls."""
    key = run.stored.key
    asked = ApprovalFilter(agent=key.agent_id, run=key.run_id)
    return RunTold(
        run=run,
        standing=standings(connection, wiring.limits(config), [run.stored], now_us)[0],
        steps=list(run_steps(connection, run, limit)),
        effects=effects_of(connection, key),
        children=children_of(connection, key),
        approvals=tuple(reversed(approval_lines(connection, now_us, MOST_APPROVALS, asked))),
        events=events_of(connection, key),
    )


def run_steps(connection: Connection, run: RunRow, limit: int) -> Iterator[Step]:
    """The first `limit` calls of the run and what was new in each."""
    rows = list_calls(connection, limit=limit, agent=run.agent_id, run=run.run_id, oldest_first=True)
    told = Story()
    for start in range(0, len(rows), AT_ONCE):
        for view in call_views(connection, [row.id for row in rows[start : start + AT_ONCE]]):
            step = told.tell(view)
            slim = msgspec.structs.replace(view, request=None, sent=None, emitted=None, released=None)
            yield msgspec.structs.replace(step, call=slim)


def children_of(connection: Connection, run: RunKey) -> tuple[ChildRun, ...]:
    """The runs that it started, the first `MOST_CHILDREN`, in order."""
    c = runs.c
    own = or_(c.parent_agent_id == run.agent_id, c.parent_agent_id == "")
    query = select(c.agent_id, c.run_id).where(c.parent_run_id == run.run_id, own)
    keys = connection.execute(query.order_by(c.started_us).limit(MOST_CHILDREN)).all()
    found = [row for key in keys for row in list_runs(connection, limit=1, agent=key[0], run=key[1])]
    return tuple(
        ChildRun(
            run_id=row.run_id,
            agent_id=row.agent_id,
            linked=not row.stored.parent_agent_id,
            purpose=row.stored.purpose,
            started_us=row.started_us,
            started_at=iso(row.started_us),
            calls=row.calls,
            denials=row.denials,
            cost_usd=usd(row.cost_micro_usd),
            cost_micro_usd=row.cost_micro_usd,
        )
        for row in found
    )


def events_of(connection: Connection, run: RunKey) -> tuple[RunHappening, ...]:
    """What was reported of it on an operator's word, in order."""
    c = run_events.c
    query = select(c.name, c.by, c.at_us).where(c.agent_id == run.agent_id, c.run_id == run.run_id)
    found = connection.execute(query.order_by(c.at_us))
    return tuple(RunHappening(event=row.name, by=row.by, at_us=row.at_us, at=iso(row.at_us)) for row in found)
