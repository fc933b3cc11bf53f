"""Puts one recorded run together again: every request and reply, and its rows' places in the chain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import Connection, and_, exists, or_, select

from llm_proxy.archive.calls import call_views
from llm_proxy.posture.facts import Rebuilt
from llm_proxy.records.chain import GENESIS, Row, link
from llm_proxy.records.prepared import select_in
from llm_proxy.records.tables import calls, records, tool_calls
from llm_proxy.records.view import CallView, Status

MOST_CALLS = 200
"""Of the run, the first ones: a run with more is tried up to there."""
_COLUMNS = "writer, seq, kind, at_us, call_id, run_id, agent_id, body, hash"
_MOST_TRIED = 50
_SAID = (Status.OK, Status.CUT)


def rebuilt(connection: Connection, since_us: int, run: tuple[str, str] | None = None) -> Rebuilt | None:
    """The newest run that has ended, one with tool calls before others; or `run` (agent, id).

    None where there is none since `since_us`.
    """
    key = run or _newest(connection, since_us)
    if key is None:
        return None
    agent_id, run_id = key
    rows = select(calls.c.id).where(calls.c.agent_id == agent_id, calls.c.run_id == run_id)
    first = rows.order_by(calls.c.started_us, calls.c.id).limit(MOST_CALLS)
    ids = [id_ for (id_,) in connection.execute(first)]
    sums = Counter[str]()
    problems: list[str] = []
    for start in range(0, len(ids), 20):
        some = ids[start : start + 20]
        views = call_views(connection, some)
        problems += [f"call {id_}: its opening record is gone" for id_ in set(some) - {v.id for v in views}]
        for view in views:
            problems += _problems(view, sums)
        checked, wrong = _chained(connection, some)
        sums["rows"] += checked
        problems += wrong
    return Rebuilt(
        run_id=run_id,
        agent_id=agent_id,
        calls=len(ids),
        requests=sums["requests"],
        replies=sums["replies"],
        bytes=sums["bytes"],
        rows=sums["rows"],
        masked=sums["masked"],
        problems=tuple(problems),
    )


def _newest(connection: Connection, since_us: int) -> tuple[str, str] | None:
    """Of the last runs that called, none of whose calls is open."""
    still = calls.alias()
    acts = exists().where(tool_calls.c.agent_id == calls.c.agent_id, tool_calls.c.run_id == calls.c.run_id)
    busy = exists().where(
        still.c.agent_id == calls.c.agent_id, still.c.run_id == calls.c.run_id, still.c.status == Status.OPEN
    )
    query = (
        select(calls.c.agent_id, calls.c.run_id, acts)
        .where(calls.c.started_us >= since_us, calls.c.status == Status.OK, ~busy)
        .order_by(calls.c.started_us.desc())
        .limit(_MOST_TRIED)
    )
    found = connection.execute(query).all()
    best = next((row for row in found if row[2]), found[0] if found else None)
    return None if best is None else (best[0], best[1])


def _problems(view: CallView, sums: Counter[str]) -> Iterable[str]:
    sums["masked"] += view.masked
    if view.request is None:
        yield f"call {view.id}: its request is no longer kept"
    else:
        sums["requests"] += 1
        sums["bytes"] += len(view.request)
    came = view.released if view.released is not None else view.emitted
    if came is not None:
        sums["replies"] += 1
        sums["bytes"] += len(came)
    elif view.status in _SAID and not view.problem:
        yield f"call {view.id}: its reply is no longer kept"
        return
    if not view.kept and view.request is not None:
        yield f"call {view.id}: some of its content is no longer kept"


def _chained(connection: Connection, ids: list[str]) -> tuple[int, list[str]]:
    """How many rows of these calls follow from the row before each, and what is wrong with the others."""
    rows = select_in(connection, _COLUMNS, "records", "call_id", ids)
    wanted = {(row[0], row[1] - 1) for row in rows}
    before = _hashes(connection, wanted)
    wrong: list[str] = []
    for writer, seq, kind, at_us, call_id, run_id, agent_id, body, hash_ in rows:
        previous = GENESIS if seq == 1 else before.get((writer, seq - 1))
        row = Row(writer, seq, kind, at_us, call_id, run_id, agent_id, bytes(body))
        if previous is None:
            wrong.append(f"record {writer}/{seq} ({kind}): the record before it is gone")
        elif link(previous, row) != bytes(hash_):
            wrong.append(f"record {writer}/{seq} ({kind}) is not what was hashed")
    return len(rows) - len(wrong), wrong


def _hashes(connection: Connection, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
    found: dict[tuple[str, int], bytes] = {}
    listed = sorted(wanted)
    for start in range(0, len(listed), 100):
        some = [
            and_(records.c.writer == writer, records.c.seq == seq)
            for writer, seq in listed[start : start + 100]
        ]
        query = select(records.c.writer, records.c.seq, records.c.hash).where(or_(*some))
        found |= {(writer, seq): bytes(hash_) for writer, seq, hash_ in connection.execute(query)}
    return found
