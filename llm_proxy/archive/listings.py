"""Listings of calls, runs, refusals and keys, newest first; the same queries serve the CLI and /admin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, func, or_, select

from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import calls, keys, refusals, runs, spend
from llm_proxy.runs.rows import StoredRun, stored_run


class CallRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a listing of calls; money in micro-dollars, times in Unix microseconds."""

    id: str
    run_id: str
    agent_id: str
    user_id: str
    status: str
    model: str
    target: str
    stream: bool
    started_us: int
    ended_us: int | None
    attempts: int
    input_tokens: int
    output_tokens: int
    cost_micro_usd: int
    cost_label: str
    error: str


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a listing of runs."""

    run_id: str
    agent_id: str
    parent_run_id: str
    team: str
    user_id: str
    inferred: bool
    started_us: int
    last_us: int
    calls: int
    refused: int
    failed: int
    open: int
    denials: int
    input_tokens: int
    output_tokens: int
    cost_micro_usd: int
    stored: StoredRun
    """How it was opened, what is above it, and whether it was ended."""


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """An issued key, less the key."""

    id: str
    agent_id: str
    run_id: str
    created_us: int
    expires_us: int | None
    revoked_us: int | None


class AgentSums(msgspec.Struct, frozen=True, kw_only=True):
    """All that one agent did; money in micro-dollars, time in Unix microseconds."""

    calls: int
    refused: int
    cost_micro_usd: int
    last_us: int


class RefusalRow(msgspec.Struct, frozen=True, kw_only=True):
    """Refusals of callers who could not be identified, by minute (Unix seconds) and reason."""

    minute_s: int
    reason: str
    count: int


def list_calls(
    connection: Connection,
    *,
    limit: int,
    agent: str | None = None,
    run: str | None = None,
    status: str | None = None,
    oldest_first: bool = False,
    offset: int = 0,
) -> list[CallRow]:
    """Calls that match behind the first `offset`, newest first unless told otherwise."""
    wanted = ((calls.c.agent_id, agent), (calls.c.run_id, run), (calls.c.status, status))
    conditions = [column == value for column, value in wanted if value is not None]
    order = (
        (calls.c.started_us, calls.c.id) if oldest_first else (calls.c.started_us.desc(), calls.c.id.desc())
    )
    query = select(calls).where(*conditions).order_by(*order).limit(limit).offset(offset)
    return [
        CallRow(
            id=row.id,
            run_id=row.run_id,
            agent_id=row.agent_id,
            user_id=row.user_id,
            status=row.status,
            model=row.model,
            target=row.target or "",
            stream=row.stream,
            started_us=row.started_us,
            ended_us=row.ended_us,
            attempts=row.attempts or 0,
            input_tokens=row.input_tokens or 0,
            output_tokens=row.output_tokens or 0,
            cost_micro_usd=row.micro_usd or 0,
            cost_label=row.cost_label or "",
            error=row.error or "",
        )
        for row in connection.execute(query)
    ]


def calls_before(connection: Connection, run: RunKey, call_id: str) -> int | None:
    """How many calls of the run began before that one; None where it isn't one of them."""
    c = calls.c
    of_run = c.agent_id == run.agent_id, c.run_id == run.run_id
    began = connection.execute(select(c.started_us).where(*of_run, c.id == call_id)).scalar()
    if began is None:
        return None
    before = or_(c.started_us < began, and_(c.started_us == began, c.id < call_id))
    return connection.execute(select(func.count()).select_from(calls).where(*of_run, before)).scalar() or 0


def list_runs(
    connection: Connection,
    *,
    limit: int,
    agent: str | None = None,
    run: str | None = None,
    wanted: Sequence[ColumnElement[bool]] = (),
) -> list[RunRow]:
    """Runs that match, the last begun first; `wanted`: further conditions (see `run_filter`)."""
    query = select(runs).order_by(runs.c.started_us.desc(), runs.c.run_id).where(*wanted).limit(limit)
    if agent is not None:
        query = query.where(runs.c.agent_id == agent)
    if run is not None:
        query = query.where(runs.c.run_id == run)
    listed = connection.execute(query).all()
    sums = _sums(connection, {row.run_id for row in listed})
    rows: list[RunRow] = []
    for row in listed:
        total = sums.get((row.agent_id, row.run_id))
        rows.append(
            RunRow(
                run_id=row.run_id,
                agent_id=row.agent_id,
                parent_run_id=row.parent_run_id,
                team=row.team,
                user_id=row.user_id,
                inferred=row.inferred,
                started_us=row.started_us,
                denials=row.denials,
                last_us=int(total.last) if total else row.started_us,
                calls=int(total.calls) if total else 0,
                refused=int(total.refused) if total else 0,
                failed=int(total.failed) if total else 0,
                open=int(total.open) if total else 0,
                input_tokens=int(total.input) if total else 0,
                output_tokens=int(total.output) if total else 0,
                cost_micro_usd=int(total.cost) if total else 0,
                stored=stored_run(row),
            )
        )
    return rows


def _counted(*statuses: str) -> ColumnElement[int]:
    return func.sum(case((calls.c.status.in_(statuses), 1), else_=0))


def _sums(connection: Connection, run_ids: set[str]) -> Mapping[tuple[str, str], Any]:
    query = (
        select(
            calls.c.agent_id,
            calls.c.run_id,
            func.count().label("calls"),
            _counted("refused").label("refused"),
            _counted("failed", "cut", "interrupted").label("failed"),
            _counted("open").label("open"),
            func.max(calls.c.started_us).label("last"),
            func.coalesce(func.sum(calls.c.input_tokens), 0).label("input"),
            func.coalesce(func.sum(calls.c.output_tokens), 0).label("output"),
            func.coalesce(func.sum(calls.c.micro_usd), 0).label("cost"),
        )
        .where(calls.c.run_id.in_(run_ids))
        .group_by(calls.c.agent_id, calls.c.run_id)
    )
    return {(row.agent_id, row.run_id): row for row in connection.execute(query)}


def list_keys(connection: Connection, *, limit: int, agent: str | None = None) -> list[KeyView]:
    """Issued keys, the newest first."""
    query = select(keys).order_by(keys.c.created_us.desc(), keys.c.id).limit(limit)
    if agent is not None:
        query = query.where(keys.c.agent_id == agent)
    return [_key(row) for row in connection.execute(query)]


def count_keys(connection: Connection, now_us: int, agent: str | None = None) -> Counter[str]:
    """How many issued keys each agent has that are good now, or this one."""
    good = keys.c.revoked_us.is_(None), or_(keys.c.expires_us.is_(None), keys.c.expires_us > now_us)
    query = select(keys.c.agent_id, func.count()).where(*good).group_by(keys.c.agent_id)
    if agent is not None:
        query = query.where(keys.c.agent_id == agent)
    return Counter({id_: int(count) for id_, count in connection.execute(query)})


def all_keys(connection: Connection, agent: str) -> int:
    """How many keys were ever issued to it."""
    query = select(func.count()).select_from(keys).where(keys.c.agent_id == agent)
    return connection.execute(query).scalar() or 0


def _key(row: Row[Any]) -> KeyView:
    return KeyView(
        id=row.id,
        agent_id=row.agent_id,
        run_id=row.run_id,
        created_us=row.created_us,
        expires_us=row.expires_us,
        revoked_us=row.revoked_us,
    )


def find_key(connection: Connection, id_: str) -> KeyView | None:
    row = connection.execute(select(keys).where(keys.c.id == id_)).first()
    return None if row is None else _key(row)


def knows_key(connection: Connection, sha256: str) -> bool:
    """Whether a key with this hash was ever issued to an agent."""
    return connection.execute(select(keys.c.id).where(keys.c.sha256 == sha256)).first() is not None


def sum_agents(connection: Connection, agent: str | None = None) -> dict[str, AgentSums]:
    """What every recorded agent did so far, or this one, by its id.

    By the daily sums, and the calls that are still open: a million calls are too many to be counted anew.
    """
    c = spend.c
    query = select(
        c.agent_id,
        func.sum(c.requests).label("calls"),
        func.sum(c.refused).label("refused"),
        func.sum(c.micro_usd).label("cost"),
        func.max(c.day).label("day"),
    ).group_by(c.agent_id)
    if agent is not None:
        query = query.where(c.agent_id == agent)
    ended = {row.agent_id: row for row in connection.execute(query)}
    # Read after the sums: a call that ends in between is missed for a moment, and never counted twice.
    ongoing = {row.agent_id: row for row in connection.execute(_open_calls(agent))}
    found: dict[str, AgentSums] = {}
    for id_ in sorted({*ended, *ongoing}):
        sums, now = ended.get(id_), ongoing.get(id_)
        found[id_] = AgentSums(
            calls=(int(sums.calls) if sums else 0) + (int(now.calls) if now else 0),
            refused=int(sums.refused) if sums else 0,
            cost_micro_usd=int(sums.cost) if sums else 0,
            last_us=max(_last_us(connection, id_, sums.day) if sums else 0, int(now.last) if now else 0),
        )
    return found


def _open_calls(agent: str | None) -> Select[str, int, int]:
    c = calls.c
    query = select(c.agent_id, func.count().label("calls"), func.max(c.started_us).label("last"))
    query = query.where(c.status == "open").group_by(c.agent_id)
    return query if agent is None else query.where(c.agent_id == agent)


def _last_us(connection: Connection, agent: str, day: int) -> int:
    """When the agent's newest call of its last day began: not far behind the day's end, seen from there."""
    c = calls.c
    query = select(c.started_us).where(c.agent_id == agent, c.started_us < (day + 1) * DAY_US)
    newest = query.where(c.started_us >= day * DAY_US).order_by(c.started_us.desc()).limit(1)
    return connection.execute(newest).scalar() or day * DAY_US


def list_refusals(connection: Connection, *, limit: int) -> list[RefusalRow]:
    """The newest minutes first."""
    columns = (refusals.c.minute, refusals.c.reason, refusals.c.count)
    query = select(*columns).order_by(refusals.c.minute.desc(), refusals.c.reason).limit(limit)
    return [
        RefusalRow(minute_s=minute * 60, reason=reason, count=count)
        for minute, reason, count in connection.execute(query)
    ]
