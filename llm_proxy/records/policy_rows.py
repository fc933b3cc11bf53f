"""Rows that the action policy leaves in the store, beside its records (see `policy_tables`)."""

from __future__ import annotations

from typing import NamedTuple


class Counted(NamedTuple):
    """What is added to one of the policy's counters (see `tables.counts`)."""

    cap: str
    subject: str
    day: int
    used: int


class ApprovalRow(NamedTuple):
    """An action that waits for a person; the columns are those of `tables.approvals`."""

    id: str
    agent_id: str
    run_id: str
    call_id: str
    tool_call_id: str
    user_id: str
    tool: str
    effect: str
    risk: str
    arguments: str
    digest: str
    schema_hash: str
    policy: str
    rule: str
    why: str
    approval: str
    approvers: str
    quorum: int
    uses: int
    valid_us: int
    requested_us: int
    expires_us: int
    status: str
    uses_left: int
    changed_us: int
    valid_until_us: int | None = None
    decided_us: int | None = None


class ApprovalChange(NamedTuple):
    """How an approval stands from now on; the order is that of the UPDATE."""

    status: str
    uses_left: int
    changed_us: int
    valid_until_us: int | None
    decided_us: int | None
    id: str


class VoteRow(NamedTuple):
    """One person's word on an approval; the first one stands."""

    approval_id: str
    operator: str
    decision: str
    reason: str
    via: str
    at_us: int


class LinkRow(NamedTuple):
    """A one-time link for one person to decide one approval."""

    sha256: str
    approval_id: str
    operator: str
    expires_us: int


class LinkUsed(NamedTuple):
    used_us: int
    sha256: str


class RunEventRow(NamedTuple):
    """An event of a run; a later one of that name takes its place."""

    agent_id: str
    run_id: str
    name: str
    by: str
    at_us: int


class EffectRow(NamedTuple):
    """A side effect that was reported."""

    id: str
    agent_id: str
    run_id: str
    tool_call_id: str
    tool: str
    kind: str
    url: str
    ref: str
    status: str
    at_us: int


class UnseenRow(NamedTuple):
    """Denied calls that an agent never saw, with what the model was told of each. The first row stands."""

    agent_id: str
    run_id: str
    key: str
    body: bytes
    at_us: int


class ClassifiedRow(NamedTuple):
    """A value of a classified field that came into a run; the highest rank stands."""

    agent_id: str
    run_id: str
    token: bytes
    sensitivity: int
    words: int
    length: int
    rule: str
