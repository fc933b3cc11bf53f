"""What people's votes make of an approval: the rules, and the job that applies one vote.

`vote` is the way for whoever lets a person decide: `/admin`, the command line, a one-time link. Whether the
person is among those who may decide it (`approvers`) is for the caller to say; all else is checked here.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, NamedTuple
from unicodedata import normalize

import msgspec
from sqlalchemy import Connection, select

from llm_proxy.records import approval_bodies as bodies
from llm_proxy.records.advancing import run_update
from llm_proxy.records.approvals import ApprovalStatus, locked, status_at, votes_on
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, RecordKind
from llm_proxy.records.policy_rows import ApprovalChange, ApprovalRow, LinkRow, LinkUsed, RunEventRow, VoteRow
from llm_proxy.records.policy_tables import links
from llm_proxy.records.runstate import UNKNOWN, Mark, RunKey, RunState

CHECKPOINT = "human-checkpoint"
"""The event that a granted approval is, for `require: {event: …}`."""

Word = Literal["approve", "deny"]


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """One person's word on an approval. `via` says how it came: `admin`, `cli`, `link`, …"""

    operator: str
    decision: Word
    reason: str = ""
    via: str
    at_us: int


class Why(StrEnum):
    """Why a vote doesn't count."""

    UNKNOWN = "unknown"
    DECIDED = "decided"
    EXPIRED = "expired"
    REQUESTER = "requester"
    TWICE = "twice"
    LINK = "link"
    """The one-time link is unknown, used, expired, or another person's."""


class Rejected(msgspec.Struct, frozen=True):
    """A vote that changed nothing. `message` can be shown to whoever voted."""

    why: Why
    message: str


class Counted(msgspec.Struct, frozen=True):
    """A vote that counts. `change` is None while more people have to say yes."""

    vote: VoteRow
    change: ApprovalChange | None
    missing: int = 0
    """How many more have to approve."""


class Voted(msgspec.Struct, frozen=True):
    """What a job of `vote` did: the approval as it stands now, and every vote on it."""

    approval: ApprovalRow
    votes: tuple[VoteRow, ...]


def decide(approval: ApprovalRow, votes: Sequence[VoteRow], vote: Vote, now_us: int) -> Counted | Rejected:
    """What `vote` makes of an approval that has `votes` so far. Any deny denies; `quorum` people approve."""
    status = status_at(approval, now_us)
    if status is not ApprovalStatus.PENDING:
        return _too_late(approval, status)
    person = _same(vote.operator)
    if vote.decision == "approve" and person in (_same(approval.user_id), _same(approval.agent_id)):
        return Rejected(
            Why.REQUESTER,
            "The call was made on your own behalf, and nobody approves their own request: "
            "ask another approver.",
        )
    if any(_same(earlier.operator) == person for earlier in votes):
        return Rejected(
            Why.TWICE,
            "You have voted on this approval already; your first word stands. Ask another approver.",
        )
    row = VoteRow(approval.id, vote.operator, vote.decision, vote.reason, vote.via, vote.at_us)
    if vote.decision == "deny":
        return Counted(row, _changed(approval, ApprovalStatus.DENIED, now_us))
    missing = approval.quorum - 1 - sum(earlier.decision == "approve" for earlier in votes)
    if missing > 0:
        return Counted(row, None, missing)
    return Counted(row, _changed(approval, ApprovalStatus.APPROVED, now_us))


def vote(approval_id: str, run: RunKey, given: Vote, now_us: int, link: str | None = None) -> Job:
    """The job that counts one vote; its value is `Voted` or `Rejected`.

    `run` is the approval's, so that its calls aren't judged meanwhile. `link` is the SHA-256 (hex) of the
    one-time link by which it comes: it's used up with the vote.
    """

    def look(connection: Connection) -> _Seen:
        approval = locked(connection, approval_id)
        held = votes_on(connection, approval_id) if approval is not None else ()
        return _Seen(approval, held, _link(connection, link) if link is not None else None)

    def then(found: Found) -> Wrote:
        seen: _Seen = found.seen
        approval = seen.approval
        if approval is None or RunKey(approval.agent_id, approval.run_id) != run:
            return Wrote(Rejected(Why.UNKNOWN, f"There is no approval {approval_id[:64]!r}."))
        if link is not None and not _opens(seen.link, approval, given, now_us):
            return Wrote(Rejected(Why.LINK, "This link is not valid, or not any more."))
        outcome = decide(approval, seen.votes, given, now_us)
        if isinstance(outcome, Rejected):
            return Wrote(outcome)
        evidence = _evidence(approval, outcome, seen.votes, found.run, now_us, link)
        after = approval if outcome.change is None else approval._replace(**outcome.change._asdict())
        return Wrote(Voted(after, (*seen.votes, outcome.vote)), evidence)

    return Job(then, run=run, look=look)


def expire(approval: ApprovalRow, now_us: int) -> Job:
    """The job that marks one as expired, where it still waits; its value is whether it did."""

    def then(found: Found) -> Wrote:
        now: ApprovalRow | None = found.seen
        if now is None or now.status != ApprovalStatus.PENDING or now.expires_us > now_us:
            return Wrote(False)
        change = _changed(now, ApprovalStatus.EXPIRED, now_us)
        return Wrote(True, Evidence(records=(_decided(now, change, (), now_us),), approval_changes=(change,)))

    run = RunKey(approval.agent_id, approval.run_id)
    return Job(then, run=run, look=lambda connection: locked(connection, approval.id))


class _Seen(NamedTuple):
    approval: ApprovalRow | None
    votes: tuple[VoteRow, ...]
    link: tuple[LinkRow, int | None] | None
    """With when it was used."""


def _same(name: str) -> str:
    """Ids of people as they're compared: one address in two spellings is one person."""
    return normalize("NFKC", normalize("NFKC", name).casefold()).strip()


def _too_late(approval: ApprovalRow, status: ApprovalStatus) -> Rejected:
    if status is ApprovalStatus.EXPIRED:
        return Rejected(Why.EXPIRED, "The approval has expired: the agent has to ask again.")
    return Rejected(Why.DECIDED, f"The approval was {status} already, and that stands.")


def _changed(approval: ApprovalRow, status: ApprovalStatus, now_us: int) -> ApprovalChange:
    granted = status is ApprovalStatus.APPROVED
    return ApprovalChange(
        status=status.value,
        uses_left=approval.uses if granted else 0,
        changed_us=now_us,
        valid_until_us=now_us + approval.valid_us if granted else None,
        decided_us=now_us,
        id=approval.id,
    )


def _link(connection: Connection, sha256: str) -> tuple[LinkRow, int | None] | None:
    columns = [links.c[name] for name in LinkRow._fields]
    query = select(*columns, links.c.used_us).where(links.c.sha256 == sha256).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        return None
    *link, used_us = row
    return LinkRow(*link), used_us


def _opens(link: tuple[LinkRow, int | None] | None, approval: ApprovalRow, vote: Vote, now_us: int) -> bool:
    if link is None:
        return False
    row, used_us = link
    mine = row.approval_id == approval.id and row.operator == vote.operator
    return mine and used_us is None and row.expires_us > now_us


def _evidence(
    approval: ApprovalRow,
    outcome: Counted,
    before: Sequence[VoteRow],
    state: RunState,
    now_us: int,
    link: str | None,
) -> Evidence:
    told = bodies.Voted(
        id=approval.id,
        tool=approval.tool,
        operator=outcome.vote.operator,
        decision=outcome.vote.decision,
        reason=outcome.vote.reason,
        via=outcome.vote.via,
        digest=approval.digest,
    )
    drafts = [_draft(RecordKind.APPROVAL_VOTED, approval, bodies.encode(told), now_us)]
    change = outcome.change
    granted = change is not None and change.status == ApprovalStatus.APPROVED
    if change is not None:
        spoke = [*before, outcome.vote] if granted else [outcome.vote]
        drafts.append(_decided(approval, change, [one.operator for one in spoke], now_us))
    run = RunKey(approval.agent_id, approval.run_id)
    happened = granted and state is not UNKNOWN
    return Evidence(
        records=tuple(drafts),
        votes=(outcome.vote,),
        approval_changes=(change,) if change is not None else (),
        links_used=(LinkUsed(now_us, link),) if link is not None else (),
        run_events=(RunEventRow(run.agent_id, run.run_id, CHECKPOINT, outcome.vote.operator, now_us),)
        if happened
        else (),
        run_updates=(run_update(state, run, marks=Mark.EVENTS),) if happened else (),
    )


def _decided(approval: ApprovalRow, change: ApprovalChange, by: Sequence[str], now_us: int) -> Draft:
    body = bodies.Decided(
        id=approval.id,
        tool=approval.tool,
        status=change.status,
        by=tuple(by),
        digest=approval.digest,
        valid_until_us=change.valid_until_us,
    )
    return _draft(RecordKind.APPROVAL_DECIDED, approval, bodies.encode(body), now_us)


def _draft(kind: RecordKind, approval: ApprovalRow, body: bytes, now_us: int) -> Draft:
    return Draft(kind, now_us, approval.call_id, approval.run_id, approval.agent_id, body)
