"""What the store knows of runs and of the runs above and below them. Everything here blocks."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, and_, case, func, or_, select

from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import calls, runs
from llm_proxy.records.view import Status

DEEPEST = 32
"""Runs that may stand above a run."""
_LEVEL = 200


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it stands in the store. Times are Unix microseconds; `trigger` and `envelope` are JSON.

    Without a `parent_agent_id`, `parent_run_id` is a trace link and no more.
    """

    agent_id: str
    run_id: str
    parent_agent_id: str = ""
    parent_run_id: str = ""
    team: str = ""
    user_id: str = ""
    user_verified: bool = False
    started_us: int = 0
    purpose: str = ""
    trigger: str = ""
    envelope: str = ""
    expires_us: int | None = None
    ended_us: int | None = None
    ended_why: str = ""

    @property
    def key(self) -> RunKey:
        return RunKey(self.agent_id, self.run_id)

    @property
    def parent(self) -> RunKey | None:
        return RunKey(self.parent_agent_id, self.parent_run_id) if self.parent_agent_id else None


_COLUMNS: list[Any] = [runs.c[name] for name in StoredRun.__struct_fields__]


def chain(
    connection: Connection, key: RunKey, known: dict[RunKey, StoredRun] | None = None
) -> list[StoredRun]:
    """The run and those above it, the nearest first; empty where it isn't there. What was read is added to
    `known`, and not read again.

    Raises LookupError where they are more than can be, or lead back to where they began: neither was written
    by us, and nobody could say what binds such a run.
    """
    found: list[StoredRun] = []
    seen: set[RunKey] = set()
    above: RunKey | None = key
    while above is not None:
        if above in seen or len(found) > DEEPEST:
            raise LookupError(f"the runs above {key.run_id!r} of {key.agent_id!r} have no end")
        seen.add(above)
        run = known.get(above) if known else None
        if run is None:
            run = find(connection, above)
        if run is None:
            if found:  # a token's run that never made a call: its id is all there is of it
                found.append(StoredRun(agent_id=above.agent_id, run_id=above.run_id))
            break
        found.append(run)
        if known is not None:
            known[above] = run
        above = run.parent
    return found


def stored_run(row: Any) -> StoredRun:
    """From a row that has every column of `state_runs`, or more."""
    return StoredRun(**{name: getattr(row, name) for name in StoredRun.__struct_fields__})


def find(connection: Connection, key: RunKey) -> StoredRun | None:
    query = select(*_COLUMNS).where(runs.c.agent_id == key.agent_id, runs.c.run_id == key.run_id)
    row = connection.execute(query).first()
    return None if row is None else stored_run(row)


def children(connection: Connection, key: RunKey, limit: int) -> list[StoredRun]:
    """The runs right below, the last begun first."""
    query = (
        select(*_COLUMNS).where(_below(key)).order_by(runs.c.started_us.desc(), runs.c.run_id).limit(limit)
    )
    return [stored_run(row) for row in connection.execute(query)]


def unended(connection: Connection, key: RunKey, limit: int) -> list[RunKey]:
    """Of the run and those below it, however deep, the ones that nobody ended yet; at most `limit`.

    Level by level: what was ended before may have runs below it that were not.
    """
    own = find(connection, key)
    found = [key] if own is not None and own.ended_us is None else []
    waiting, seen = [key], {key}
    while waiting and len(found) < limit:
        level, waiting = waiting[:_LEVEL], waiting[_LEVEL:]
        query = select(runs.c.agent_id, runs.c.run_id, runs.c.ended_us).where(or_(*map(_below, level)))
        for agent, run, ended_us in connection.execute(query.order_by(runs.c.agent_id, runs.c.run_id)):
            below = RunKey(agent, run)
            if below in seen:
                continue
            seen.add(below)
            waiting.append(below)
            if ended_us is None:
                found.append(below)
    return found[:limit]


class CallSums(msgspec.Struct, frozen=True, kw_only=True):
    """A run's own calls; money in micro-dollars."""

    total: int
    open: int
    refused: int
    failed: int
    cost_micro_usd: int


def sum_calls(connection: Connection, key: RunKey) -> CallSums:
    def counted(*statuses: Status) -> Any:
        return func.coalesce(func.sum(case((calls.c.status.in_(statuses), 1), else_=0)), 0)

    query = select(
        func.count(),
        counted(Status.OPEN),
        counted(Status.REFUSED),
        counted(Status.FAILED, Status.CUT, Status.INTERRUPTED),
        func.coalesce(func.sum(calls.c.micro_usd), 0),
    ).where(calls.c.run_id == key.run_id, calls.c.agent_id == key.agent_id)
    total, open_, refused, failed, cost = map(int, connection.execute(query).one())
    return CallSums(total=total, open=open_, refused=refused, failed=failed, cost_micro_usd=cost)


def count_open(connection: Connection, agent: str, now_us: int, most: int) -> int:
    """The agent's runs that were opened and are not over, counted up to `most`."""
    live = (
        select(runs.c.run_id)
        .where(runs.c.agent_id == agent, runs.c.expires_us > now_us, runs.c.ended_us.is_(None))
        .limit(most)
        .subquery()
    )
    return connection.execute(select(func.count()).select_from(live)).scalar_one()


def _below(key: RunKey) -> Any:
    """Beside the index's own condition, by which SQLite finds it."""
    return and_(
        runs.c.parent_run_id == key.run_id,
        runs.c.parent_run_id != "",
        runs.c.parent_agent_id == key.agent_id,
    )
