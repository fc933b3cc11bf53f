"""The part of a run that one page tells: so many calls, and what happened at their time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import structs
from sqlalchemy import Connection

from llm_proxy.admin.content_read import Seen
from llm_proxy.admin.errors import NotFound
from llm_proxy.admin.reading import find_run
from llm_proxy.admin.run_around import ApprovalMoment, Below, approval_moments, runs_below
from llm_proxy.admin.run_told import run_told
from llm_proxy.archive.listings import RunRow, calls_before, list_calls
from llm_proxy.config import Config
from llm_proxy.console.room import Room
from llm_proxy.console.timeline import timeline

CALLS = 100
"""Calls of a page."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`after`: calls before the page's first. `call`: the id of one that is to be on it, else empty."""

    run_id: str
    agent: str | None
    after: int = 0
    call: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """From the page's first call on, until that of the next page; a run's first page begins with the run."""

    from_us: int
    until_us: int | None

    def __contains__(self, at_us: int) -> bool:
        return self.from_us <= at_us and (self.until_us is None or at_us < self.until_us)


def run_part(
    config: Config, connection: Connection, asked: Asked, now_us: int
) -> tuple[dict[str, Any], Seen]:
    """What the page tells, and whose content is in it. Raises `NotFound`, `Unclear`."""
    row = find_run(connection, asked.run_id, asked.agent)
    after = _after(connection, row, asked)
    run = run_told(config, connection, row, now_us, CALLS, after=after, cut=Room().step).shown()
    calls = [call.id for call in run.calls]
    if after and not calls:
        raise NotFound(f"Run {row.run_id!r} of {row.agent_id} has {run.call_count:,} calls.")
    behind = list_calls(
        connection, limit=1, agent=row.agent_id, run=row.run_id, oldest_first=True, offset=after + CALLS
    )
    time = Span(
        run.calls[0].started_us if run.calls and after else 0, behind[0].started_us if behind else None
    )
    approvals = list(of_page(approval_moments(connection, run.approvals, calls), time))
    run = structs.replace(
        run,
        effects=tuple(one for one in run.effects if one.at_us in time),
        events=tuple(one for one in run.events if one.at_us in time),
    )
    tree, more = runs_below(connection, row.stored.key, run.children, more=run.more_children)
    below = list(begun(tree, time))
    told = {
        "run": run,
        "moments": timeline(run, below, approvals, first=after + 1),
        "most_below": len(tree) if more else None,
        "first": after + 1,
        "earlier": max(0, after - CALLS) if after else None,
        "later": after + CALLS if behind else None,
    }
    return told, Seen(None, calls, row.stored.key)


def _after(connection: Connection, row: RunRow, asked: Asked) -> int:
    if not asked.call:
        return asked.after
    place = calls_before(connection, row.stored.key, asked.call)
    if place is None:
        raise NotFound(f"No call {asked.call!r} is recorded in run {row.run_id!r} of {row.agent_id}.")
    return place - place % CALLS


def of_page(approvals: Iterable[ApprovalMoment], time: Span) -> Iterator[ApprovalMoment]:
    """What became of them in that time. A use belongs to its call: it may come when the next page's began."""
    return (one for one in approvals if one.what == "used" or one.at_us in time)


def begun(below: Sequence[Below], time: Span) -> Iterator[Below]:
    """Runs that were begun in that time, each with those below it."""
    inside = False
    for one in below:
        if one.depth == 1:
            inside = one.run.started_us in time
        if inside:
            yield one
