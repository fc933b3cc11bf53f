"""Approvals as the store has them: reads, and what one counts as at a moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from sqlalchemy import Connection, func, literal_column, select

from llm_proxy.records.policy_rows import ApprovalRow, VoteRow
from llm_proxy.records.policy_tables import approvals, votes

_AT_ONCE = 500
"""Ids in one statement."""


class ApprovalStatus(StrEnum):
    """`approved` is a grant, for as long as it has uses left and is valid."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"


def status_at(approval: ApprovalRow, now_us: int) -> ApprovalStatus:
    """What it counts as: one that waits past its end has expired, whether or not that is written yet."""
    if approval.status == ApprovalStatus.PENDING and approval.expires_us <= now_us:
        return ApprovalStatus.EXPIRED
    return ApprovalStatus(approval.status)


def usable(approval: ApprovalRow, now_us: int) -> bool:
    """Whether it's a grant that still lets its action through."""
    valid_until = approval.valid_until_us
    return (
        approval.status == ApprovalStatus.APPROVED
        and approval.uses_left > 0
        and valid_until is not None
        and valid_until > now_us
    )


_COLUMNS = [approvals.c[name] for name in ApprovalRow._fields]
_VOTE = [votes.c[name] for name in VoteRow._fields]


def of_actions(
    connection: Connection, agent_id: str, run_id: str, digests: Iterable[str]
) -> tuple[ApprovalRow, ...]:
    """All that were ever asked for these actions in the run, the oldest first, locked in a transaction that
    writes."""
    query = (
        select(*_COLUMNS)
        .where(approvals.c.agent_id == agent_id, approvals.c.run_id == run_id)
        .where(approvals.c.digest.in_(sorted(set(digests))))
        .order_by(approvals.c.requested_us, approvals.c.id)
        .with_for_update()
    )
    return tuple([ApprovalRow(*row) for row in connection.execute(query)])


def waiting(connection: Connection, agent_id: str, run_id: str, now_us: int) -> tuple[int, int]:
    """How many of the agent's wait for people: in the run, and in all."""
    query = (
        select(approvals.c.run_id, func.count())
        # Both as the index of those that wait needs it: an agent's decided ones may be many.
        .where(approvals.c.status == literal_column("'pending'"), approvals.c.expires_us > now_us)
        .where(func.coalesce(approvals.c.agent_id, "") == agent_id)
        .group_by(approvals.c.run_id)
    )
    counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(query)}
    return counts.get(run_id, 0), sum(counts.values())


def by_ids(connection: Connection, ids: Sequence[str]) -> list[ApprovalRow]:
    found: list[ApprovalRow] = []
    for start in range(0, len(ids), _AT_ONCE):
        query = select(*_COLUMNS).where(approvals.c.id.in_(ids[start : start + _AT_ONCE]))
        found += [ApprovalRow(*row) for row in connection.execute(query)]
    return found


def locked(connection: Connection, id_: str) -> ApprovalRow | None:
    """One approval; nobody else changes it before the transaction ends."""
    row = connection.execute(select(*_COLUMNS).where(approvals.c.id == id_).with_for_update()).first()
    return None if row is None else ApprovalRow(*row)


def votes_on(connection: Connection, id_: str) -> tuple[VoteRow, ...]:
    """What people said of it, in order."""
    query = select(*_VOTE).where(votes.c.approval_id == id_).order_by(votes.c.at_us, votes.c.operator)
    return tuple([VoteRow(*row) for row in connection.execute(query)])


def overdue(connection: Connection, now_us: int, most: int) -> list[ApprovalRow]:
    """Some that wait past their end."""
    late = approvals.c.status == ApprovalStatus.PENDING.value, approvals.c.expires_us <= now_us
    query = select(*_COLUMNS).where(*late).order_by(approvals.c.expires_us).limit(most)
    return [ApprovalRow(*row) for row in connection.execute(query)]
