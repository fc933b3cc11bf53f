"""What happens, as it is committed: the records that people follow, each as a short event without content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, select

from llm_proxy.records import bodies
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.tables import records, writers
from llm_proxy.records.times import iso

MOST = 500
"""Events of one look."""
_SLACK_US = 600 * 1_000_000
"""Writers that were not seen for so long are not looked at until they write again."""


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `told` says what happened in a few words, and quotes no content."""

    at_us: int
    at: str
    kind: str
    agent_id: str
    run_id: str
    call_id: str
    told: str
    micro_usd: int = 0


class Position(NamedTuple):
    """How far each writer was followed at `at_us`. Writers that were quiet for long needn't be there."""

    at_us: int
    seqs: dict[str, int]


class _Voted(msgspec.Struct, frozen=True):
    operator: str = ""
    decision: str = ""


class _Approval(msgspec.Struct, frozen=True):
    id: str = ""
    tool: str = ""
    rule: str = ""
    status: str = ""


class _Run(msgspec.Struct, frozen=True):
    purpose: str = ""
    why: str = ""
    by: str = ""
    event: str = ""
    kind: str = ""
    tool: str = ""
    reason: str = ""


def now_position(connection: Connection, now_us: int) -> Position:
    """From here on."""
    c = writers.c
    heads = connection.execute(select(c.writer, c.head_seq).where(c.seen_us >= now_us - _SLACK_US))
    return Position(now_us, {row.writer: row.head_seq for row in heads})


def follow(
    connection: Connection,
    position: Position,
    now_us: int,
    *,
    run: str | None = None,
    agent: str | None = None,
) -> tuple[list[Happening], Position]:
    """What was committed since, in order of time, and how far that is."""
    c, w = records.c, writers.c
    moved = select(w.writer, w.started_us, w.head_seq).where(w.seen_us >= now_us - _SLACK_US)
    seqs, found = dict[str, int](), list[Happening]()
    for writer, started_us, head in connection.execute(moved).all():
        after = position.seqs.get(writer)
        if after is None:
            after = 0 if started_us >= position.at_us - _SLACK_US else max(0, head - MOST)
        until = seqs[writer] = min(head, after + MOST)
        if until == after:
            continue
        query = select(c.kind, c.at_us, c.call_id, c.run_id, c.agent_id, c.body)
        query = query.where(c.writer == writer, c.seq > after, c.seq <= until, c.kind.in_(list(_TOLD)))
        if writer not in position.seqs:
            query = query.where(c.at_us >= position.at_us)
        for column, value in ((c.run_id, run), (c.agent_id, agent)):
            query = query if value is None else query.where(column == value)
        found += [_happening(row) for row in connection.execute(query.order_by(c.seq))]
    found.sort(key=lambda one: one.at_us)
    return found, Position(now_us, seqs)


def _happening(row: Any) -> Happening:
    told, micro_usd = _TOLD[row.kind](bytes(row.body))
    return Happening(
        at_us=row.at_us,
        at=iso(row.at_us),
        kind=row.kind,
        agent_id=row.agent_id or "",
        run_id=row.run_id or "",
        call_id=row.call_id or "",
        told=told,
        micro_usd=micro_usd,
    )


def _opened(body: bytes) -> tuple[str, int]:
    opened = bodies.read_opened(body)
    return f"asks {opened.model or 'no model'}", 0


def _closed(body: bytes) -> tuple[str, int]:
    return _end(bodies.read_closed(body))


def _refused(body: bytes) -> tuple[str, int]:
    return _end(bodies.read_refused(body).closed)


def _end(closed: bodies.Closed) -> tuple[str, int]:
    told = [closed.status, *([f"from {closed.target}"] if closed.target else [])]
    if closed.usage is not None:
        told.append(f"{closed.usage.input:,} tokens in, {closed.usage.output:,} out")
    if closed.problem is not None:
        told.append(closed.problem.kind)
    return ", ".join(told), closed.cost_micro_usd


def _verdicts(body: bytes) -> tuple[str, int]:
    told = [
        f"{one.tool} {'allowed' if one.decision == 'allow' else 'denied'}"
        + (f" by {one.rule}" if one.rule else "")
        + (" (shadow)" if one.shadow else "")
        for one in bodies.read_verdicts(body).decisions
    ]
    return "; ".join(told), 0


def _reached(body: bytes) -> tuple[str, int]:
    return bodies.read_reached(body).message, 0


def _asked(body: bytes) -> tuple[str, int]:
    one = msgspec.json.decode(body, type=_Approval)
    return f"{one.tool} waits for a person by {one.rule}: {one.id}", 0


def _voted(body: bytes) -> tuple[str, int]:
    one, of = msgspec.json.decode(body, type=_Voted), msgspec.json.decode(body, type=_Approval)
    return f"{one.operator} says {one.decision}: {of.id}", 0


def _decided(body: bytes) -> tuple[str, int]:
    one = msgspec.json.decode(body, type=_Approval)
    return f"{one.status or 'used'}: {one.id}", 0


def _run(body: bytes) -> tuple[str, int]:
    one = msgspec.json.decode(body, type=_Run)
    parts = (one.event, one.kind, one.tool, one.purpose, one.why or one.reason, one.by and f"by {one.by}")
    return " ".join(part for part in parts if part), 0


_TOLD: dict[str, Callable[[bytes], tuple[str, int]]] = {
    RecordKind.CALL_OPENED.value: _opened,
    RecordKind.CALL_CLOSED.value: _closed,
    RecordKind.CALL_REFUSED.value: _refused,
    RecordKind.VERDICTS.value: _verdicts,
    RecordKind.BUDGET_REACHED.value: _reached,
    RecordKind.APPROVAL_REQUESTED.value: _asked,
    RecordKind.APPROVAL_VOTED.value: _voted,
    RecordKind.APPROVAL_DECIDED.value: _decided,
    RecordKind.APPROVAL_USED.value: _decided,
    RecordKind.RUN_OPENED.value: _run,
    RecordKind.RUN_ENDED.value: _run,
    RecordKind.RUN_EVENT.value: _run,
    RecordKind.RUN_EFFECT.value: _run,
    RecordKind.AGENT_FROZEN.value: _run,
    RecordKind.AGENT_THAWED.value: _run,
}
