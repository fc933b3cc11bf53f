"""Everything that is told of one run: how it stands, its calls, and what stands around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, or_, select, tuple_

from llm_proxy.admin.approvals import ApprovalLine, approval_lines
from llm_proxy.admin.runs import stands
from llm_proxy.admin.shapes import ChildRun, RunHappening, RunShown
from llm_proxy.admin.shown import run_shown, usd
from llm_proxy.admin.story import Step, Story
from llm_proxy.archive.approvals import ApprovalFilter
from llm_proxy.archive.calls import each_view
from llm_proxy.archive.listings import RunRow, list_calls, list_runs
from llm_proxy.config import Config
from llm_proxy.records.policy_tables import run_events
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import runs
from llm_proxy.records.times import iso
from llm_proxy.runs.effects import Effect, effects_of
from llm_proxy.runs.status import Standing

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
    more_children: bool = False
    """Whether it started further ones."""
    approvals: tuple[ApprovalLine, ...] = ()
    more_approvals: bool = False
    """Whether there were others before these."""
    events: tuple[RunHappening, ...] = ()

    def shown(self) -> RunShown:
        return run_shown(
            self.run,
            self.standing,
            self.steps,
            self.effects,
            children=self.children,
            more_children=self.more_children,
            approvals=self.approvals,
            more_approvals=self.more_approvals,
            events=self.events,
        )


def run_told(
    config: Config,
    connection: Connection,
    run: RunRow,
    now_us: int,
    limit: int,
    *,
    after: int = 0,
    cut: Callable[[Step], Step] | None = None,
) -> RunTold:
    """`limit`: at most so many calls, behind the first `after`. `cut` makes each smaller as it's read."""
    key = run.stored.key
    steps = run_steps(connection, run, limit, after)
    asked = ApprovalFilter(agent=key.agent_id, run=key.run_id)
    children = [child for _, child in children_of(connection, [key], MOST_CHILDREN + 1)]
    approvals = approval_lines(connection, now_us, MOST_APPROVALS + 1, asked)
    return RunTold(
        run=run,
        standing=stands(config, connection, run, now_us),
        steps=list(steps if cut is None else map(cut, steps)),
        effects=effects_of(connection, key),
        children=tuple(children[:MOST_CHILDREN]),
        more_children=len(children) > MOST_CHILDREN,
        approvals=tuple(reversed(approvals[:MOST_APPROVALS])),
        more_approvals=len(approvals) > MOST_APPROVALS,
        events=events_of(connection, key),
    )


def run_steps(connection: Connection, run: RunRow, limit: int, after: int = 0) -> Iterator[Step]:
    """`limit` calls of the run behind the first `after`, and what was new in each.

    A call resends what was said: of those further back only the last few are read, to know what isn't new.
    """
    begin = max(0, after - AT_ONCE)
    rows = list_calls(
        connection,
        limit=after - begin + limit,
        agent=run.agent_id,
        run=run.run_id,
        oldest_first=True,
        offset=begin,
    )
    told = Story()
    for number, view in enumerate(each_view(connection, [row.id for row in rows], AT_ONCE), begin):
        step = told.tell(view)
        if number < after:
            continue
        slim = msgspec.structs.replace(view, request=None, sent=None, emitted=None, released=None)
        yield msgspec.structs.replace(step, call=slim)


def children_of(
    connection: Connection, parents: Sequence[RunKey], limit: int
) -> list[tuple[RunKey, ChildRun]]:
    """The runs that those started, each with the one that did; the first `limit`, in order."""
    c = runs.c
    named = c.parent_run_id != "", c.parent_run_id.in_({parent.run_id for parent in parents})
    whose = tuple_(c.parent_agent_id, c.parent_run_id).in_([(one.agent_id, one.run_id) for one in parents])
    query = select(c.agent_id, c.run_id).where(*named, or_(c.parent_agent_id == "", whose))
    keys = connection.execute(query.order_by(c.started_us, c.run_id.desc()).limit(limit)).all()
    these = tuple_(c.agent_id, c.run_id).in_([(key.agent_id, key.run_id) for key in keys])
    found = list_runs(connection, limit=limit, wanted=[these]) if keys else []
    return [(_parent(row, parents), _child(row)) for row in reversed(found)]


def _parent(row: RunRow, parents: Sequence[RunKey]) -> RunKey:
    """A trace link names no agent."""
    whose = row.stored.parent_agent_id
    return next(one for one in parents if one.run_id == row.parent_run_id and whose in ("", one.agent_id))


def _child(row: RunRow) -> ChildRun:
    return ChildRun(
        run_id=row.run_id,
        agent_id=row.agent_id,
        linked=not row.stored.parent_agent_id,
        purpose=row.stored.purpose,
        started_us=row.started_us,
        started_at=iso(row.started_us),
        last_us=row.last_us,
        last_at=iso(row.last_us),
        calls=row.calls,
        denials=row.denials,
        cost_usd=usd(row.cost_micro_usd),
        cost_micro_usd=row.cost_micro_usd,
    )


def events_of(connection: Connection, run: RunKey) -> tuple[RunHappening, ...]:
    """What was reported of it on an operator's word, in order."""
    c = run_events.c
    query = select(c.name, c.by, c.at_us).where(c.agent_id == run.agent_id, c.run_id == run.run_id)
    found = connection.execute(query.order_by(c.at_us))
    return tuple(RunHappening(event=row.name, by=row.by, at_us=row.at_us, at=iso(row.at_us)) for row in found)
