"""Approvals as people look for them: newest first, with what was said of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, or_, select

from llm_proxy.records import approval_bodies as bodies
from llm_proxy.records.approvals import ApprovalStatus
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.policy_rows import ApprovalRow, VoteRow
from llm_proxy.records.policy_tables import approvals, links, votes
from llm_proxy.records.prepared import select_in
from llm_proxy.records.tables import records

_AT_ONCE = 500


class ApprovalFilter(msgspec.Struct, frozen=True, kw_only=True):
    """`status` None is any. `before`: only what was asked for before the approval of this id."""

    status: ApprovalStatus | None = None
    agent: str | None = None
    run: str | None = None
    before: str | None = None


def list_approvals(
    connection: Connection, wanted: ApprovalFilter, now_us: int, limit: int
) -> list[ApprovalRow]:
    """The newest first: ids grow with time."""
    c = approvals.c
    query = select(*(c[name] for name in ApprovalRow._fields)).order_by(c.id.desc()).limit(limit)
    if wanted.status is not None:
        query = query.where(_stands(wanted.status, now_us))
    for column, value in ((c.agent_id, wanted.agent), (c.run_id, wanted.run)):
        query = query if value is None else query.where(column == value)
    if wanted.before is not None:
        query = query.where(c.id < wanted.before)
    return [ApprovalRow(*row) for row in connection.execute(query)]


def votes_of(connection: Connection, ids: Sequence[str]) -> dict[str, list[VoteRow]]:
    """What people said of each, in order."""
    found: defaultdict[str, list[VoteRow]] = defaultdict(list)
    c = votes.c
    for start in range(0, len(ids), _AT_ONCE):
        query = select(*(c[name] for name in VoteRow._fields))
        query = query.where(c.approval_id.in_(ids[start : start + _AT_ONCE])).order_by(c.at_us, c.operator)
        for row in connection.execute(query):
            found[row.approval_id].append(VoteRow(*row))
    return found


def uses_of(connection: Connection, calls: Sequence[str]) -> list[tuple[int, str]]:
    """When (Unix µs) a grant let an action of one of the calls through, and the approval's id."""
    used, found = RecordKind.APPROVAL_USED.value, list[tuple[int, str]]()
    for start in range(0, len(calls), _AT_ONCE):
        some = calls[start : start + _AT_ONCE]
        rows = select_in(connection, "kind, at_us, body", "records", "call_id", some)
        found += [(at_us, bodies.read_used(bytes(body)).id) for kind, at_us, body in rows if kind == used]
    return sorted(found)


class LinkView(msgspec.Struct, frozen=True):
    """A one-time link, less its secret."""

    approval_id: str
    operator: str
    expires_us: int
    used_us: int | None


def find_link(connection: Connection, sha256: str) -> LinkView | None:
    """The link whose secret has that hash."""
    c = links.c
    row = connection.execute(
        select(c.approval_id, c.operator, c.expires_us, c.used_us).where(c.sha256 == sha256)
    ).first()
    return None if row is None else LinkView(*row)


def owner_of(connection: Connection, approval: ApprovalRow) -> str:
    """Who answers for the tool, as the policy said when it was asked for."""
    c = records.c
    query = select(c.body).where(c.call_id == approval.call_id, c.kind == RecordKind.APPROVAL_REQUESTED.value)
    told = (bodies.read_requested(body) for body in connection.execute(query).scalars())
    return next((one.owner for one in told if one.id == approval.id), "")


def _stands(status: ApprovalStatus, now_us: int) -> ColumnElement[Any]:
    """As `records.approvals.status_at` has it: one that waits past its end has expired."""
    c = approvals.c
    pending = ApprovalStatus.PENDING.value
    match status:
        case ApprovalStatus.PENDING:
            return and_(c.status == pending, c.expires_us > now_us)
        case ApprovalStatus.EXPIRED:
            return or_(c.status == status.value, and_(c.status == pending, c.expires_us <= now_us))
        case _:
            return c.status == status.value
