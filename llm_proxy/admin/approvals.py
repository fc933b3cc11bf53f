"""Approvals as people see and decide them: on the command line, under `/admin`, and by a one-time link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Connection

from llm_proxy import approving
from llm_proxy.admin.approval_lines import ApprovalLine
from llm_proxy.admin.errors import Conflict, NotFound, Unclear
from llm_proxy.admin.shown import maybe_iso
from llm_proxy.approving import Rejected, Vote, Voted, Why, Word
from llm_proxy.archive.approvals import ApprovalFilter, list_approvals, owner_of, votes_of
from llm_proxy.config import Config
from llm_proxy.config.approvers import may_approve, who_may_approve
from llm_proxy.config.values import ADMIN_TOKEN
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.freezing import checked_reason
from llm_proxy.identity.issuing import Via
from llm_proxy.records.approvals import ApprovalStatus, by_ids, status_at
from llm_proxy.records.batch import Job
from llm_proxy.records.policy_rows import ApprovalRow, VoteRow
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.times import iso


class Wanted(StrEnum):
    """Which approvals a listing shows."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    ALL = "all"

    @property
    def status(self) -> ApprovalStatus | None:
        return None if self is Wanted.ALL else ApprovalStatus(self.value)


class ApprovalWord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why, in up to 500 characters, for the record; it may be left out."""

    reason: str = ""


def one_line(text: str) -> str:
    """A form's reason: its field takes several lines, so that Enter sends nothing."""
    return " ".join(text.split())


class VoteShown(msgspec.Struct, frozen=True, kw_only=True):
    """One person's word. `via`: admin, cli-offline or link."""

    operator: str
    decision: str
    reason: str
    via: str
    at_us: int
    at: str


class ApprovalShown(ApprovalLine, frozen=True, kw_only=True):
    """All of it. A grant of it lets exactly this action through, `uses` times, until `valid_until`."""

    owner: str
    """Of the tool."""
    arguments: str
    """The text that was judged, which is what will run."""
    digest: str
    """SHA-256 of tool and canonical arguments."""
    tool_call_id: str
    schema_hash: str
    policy: str
    """The policy file's SHA-256."""
    approval: str
    """The entry of the policy's `approvals`."""
    may_approve: tuple[str, ...]
    """The operators of the config who are among the approvers and have the role."""
    votes: tuple[VoteShown, ...]
    uses: int
    used: int
    valid_us: int
    """How long a grant is good once it's given."""
    valid_until_us: int | None
    valid_until: str | None


def approval_lines(
    connection: Connection | None, now_us: int, limit: int, wanted: ApprovalFilter
) -> list[ApprovalLine]:
    """The newest first."""
    rows = list_approvals(connection, wanted, now_us, limit) if connection is not None else []
    said = votes_of(connection, [row.id for row in rows]) if connection is not None else {}
    return [ApprovalLine(**_line(row, said.get(row.id, ()), now_us)) for row in rows]


def approval_shown(config: Config, connection: Connection | None, now_us: int, id_: str) -> ApprovalShown:
    """Raises `NotFound`."""
    if connection is None:
        raise unknown(id_)
    row = find(connection, id_)
    said = votes_of(connection, [row.id]).get(row.id, [])
    return ApprovalShown(
        **_line(row, said, now_us),
        owner=owner_of(connection, row),
        arguments=row.arguments,
        digest=row.digest,
        tool_call_id=row.tool_call_id,
        schema_hash=row.schema_hash,
        policy=row.policy,
        approval=row.approval,
        may_approve=who_may_approve(config.operators, approvers_of(row)),
        votes=tuple(
            VoteShown(
                operator=vote.operator,
                decision=vote.decision,
                reason=vote.reason,
                via=vote.via,
                at_us=vote.at_us,
                at=iso(vote.at_us),
            )
            for vote in said
        ),
        uses=row.uses,
        used=row.uses - row.uses_left if row.status == ApprovalStatus.APPROVED else 0,
        valid_us=row.valid_us,
        valid_until_us=row.valid_until_us,
        valid_until=maybe_iso(row.valid_until_us),
    )


def find(connection: Connection, id_: str) -> ApprovalRow:
    """Raises `NotFound`."""
    found = by_ids(connection, [id_])
    if not found:
        raise unknown(id_)
    return found[0]


def unknown(id_: str) -> NotFound:
    return NotFound(f"There is no approval {id_[:64]!r}: `llm-proxy approvals list` lists those that wait.")


def word(
    config: Config,
    approval: ApprovalRow,
    decision: Word,
    wish: ApprovalWord,
    now_us: int,
    *,
    by: str,
    via: Via,
    link: str | None = None,
) -> Job:
    """The job that counts one person's word; its value goes to `heard`. `link` as in `approving.vote`.

    Raises `ProxyError(forbidden_role)` for a person who isn't asked, `Unclear` for a reason that can't be
    recorded.
    """
    if by != ADMIN_TOKEN and not is_asked(config, by, approval):
        names = ", ".join(approvers_of(approval))
        raise _forbidden(f"{by} is not among those who may decide {approval.id}: {names}.")
    try:
        reason = checked_reason(wish.reason)
    except ValueError as error:
        raise Unclear(str(error)) from None
    vote = Vote(operator=by, decision=decision, reason=reason, via=via.value, at_us=now_us)
    run = RunKey(approval.agent_id, approval.run_id)
    return approving.vote(approval.id, run, vote, now_us, link)


def heard(value: Voted | Rejected, id_: str) -> None:
    """Raises what a word came to that didn't count: `NotFound`, `Conflict`, `ProxyError(forbidden_role)`."""
    if isinstance(value, Voted):
        return
    if value.why is Why.UNKNOWN:
        raise unknown(id_)
    if value.why is Why.REQUESTER:
        raise _forbidden(value.message)
    raise Conflict(value.message)


def is_asked(config: Config, operator_id: str, approval: ApprovalRow) -> bool:
    """Whether the operator may decide it, by the config as it is now."""
    approvers = approvers_of(approval)
    return any(one.id == operator_id and may_approve(one, approvers) for one in config.operators)


def approvers_of(approval: ApprovalRow) -> tuple[str, ...]:
    return msgspec.json.decode(approval.approvers, type=tuple[str, ...])


def _line(row: ApprovalRow, said: Sequence[VoteRow], now_us: int) -> Mapping[str, Any]:
    """The keyword arguments of an `ApprovalLine`."""
    same = set(ApprovalLine.__struct_fields__) & set(ApprovalRow._fields)
    return {name: getattr(row, name) for name in same} | {
        "status": status_at(row, now_us),
        "approvers": approvers_of(row),
        "approved_by": tuple(vote.operator for vote in said if vote.decision == "approve"),
        "requested_at": iso(row.requested_us),
        "expires_at": iso(row.expires_us),
        "decided_at": maybe_iso(row.decided_us),
    }


def _forbidden(message: str) -> ProxyError:
    return ProxyError(Kind.FORBIDDEN_ROLE, message, retryable=False)
