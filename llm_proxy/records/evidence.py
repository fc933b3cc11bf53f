"""What one unit of work leaves in the store: drafts of rows, before the writer chains and inserts them."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from llm_proxy.records.audit_rows import CheckpointRow, LegalHoldRow, PrefixRow, PurgedRow, TraceRow
from llm_proxy.records.kinds import RecordKind
from llm_proxy.records.policy_rows import (
    ApprovalChange,
    ApprovalRow,
    ClassifiedRow,
    Counted,
    EffectRow,
    LinkRow,
    LinkUsed,
    RunEventRow,
    UnseenRow,
    VoteRow,
)
from llm_proxy.records.rule_hits import RuleHitRow

TOOL_CALL_ID_CHARS = 256


def tool_call_key(id_: str) -> str:
    """A tool call's id as it's stored and looked up: itself, or its SHA-256 where a column can't hold it.

    Servers that carry a model's thoughts in the id make it thousands of characters long.
    """
    if len(id_) <= TOOL_CALL_ID_CHARS and "\0" not in id_:
        return id_
    return f"sha256:{hashlib.sha256(id_.encode()).hexdigest()}"


class Draft(NamedTuple):
    """A row of `records` to be. `body` is JSON; the writer adds its place in the chain."""

    kind: RecordKind
    at_us: int
    call_id: str | None
    run_id: str | None
    agent_id: str | None
    body: bytes


class BlobDraft(NamedTuple):
    """Content to be stored under `id`, unless it's there: the address that it had before it was `masked`."""

    id: bytes
    epoch: int
    content: bytes
    masked: bool = False


class CallOpen(NamedTuple):
    """A new row of `state_calls`; the order is that of the INSERT."""

    id: str
    run_id: str
    agent_id: str
    team: str
    user_id: str
    key_id: str
    dialect: str
    stream: bool
    model: str
    status: str
    started_us: int
    tags: str = ""
    ended_us: int | None = None
    attempts: int | None = None
    micro_usd: int | None = None
    error: str | None = None


class CallClose(NamedTuple):
    """What an ended call adds to its row of `state_calls`; the order is that of the UPDATE."""

    status: str
    ended_us: int
    target: str | None
    provider: str | None
    attempts: int
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    micro_usd: int
    lost_micro_usd: int
    """The part of `micro_usd` that failed attempts cost."""
    cost_label: str | None
    price: str | None
    """The version of the price that it was counted with."""
    error: str | None
    id: str


class RunOpen(NamedTuple):
    """A row of `state_runs`, inserted where it isn't there yet.

    One with an expiry is opened by itself, and must not be there.
    """

    agent_id: str
    run_id: str
    parent_run_id: str
    team: str
    user_id: str
    role_at_start: str
    inferred: bool
    started_us: int
    revision: int = 0
    sensitivity: int = 0
    untrusted: bool = False
    labels: str = "[]"
    denials: int = 0
    parent_agent_id: str = ""
    purpose: str = ""
    trigger: str = ""
    envelope: str = ""
    expires_us: int | None = None
    user_verified: bool = False
    marks: int = 0


class RunEnd(NamedTuple):
    """A run that takes no more calls; the first end stands. The order is that of the UPDATE."""

    ended_us: int
    ended_why: str
    agent_id: str
    run_id: str


class RunUpdate(NamedTuple):
    """What the policy must remember of a run; the order is that of the UPDATE."""

    revision: int
    sensitivity: int
    untrusted: bool
    labels: str
    denials: int
    marks: int
    agent_id: str
    run_id: str


class ToolCallRow(NamedTuple):
    """A judged tool call, as later calls of the run must know it."""

    agent_id: str
    run_id: str
    call_id: str
    choice: int
    position: int
    tool_call_id: str
    tool: str
    decision: str
    effect: str
    digest: str
    at_us: int
    answered_us: int | None = None


class Answered(NamedTuple):
    """A tool result (`result` its digest) came in for a call that was released; the order is the UPDATE's."""

    answered_us: int
    result: str
    agent_id: str
    run_id: str
    call_id: str
    choice: int
    position: int


class ResponseRow(NamedTuple):
    """A row of `state_responses`. Fetched again, it only becomes charged, with what was denied told anew."""

    id: str
    agent_id: str
    call_id: str
    model: str
    target: str
    charged: bool
    denied: str


class KeyRow(NamedTuple):
    id: str
    agent_id: str
    sha256: str
    run_id: str
    created_us: int
    expires_us: int | None
    revoked_us: int | None = None


class KeyRevoked(NamedTuple):
    """A key that ends now; the first revocation stands."""

    revoked_us: int
    changed_us: int
    id: str


class Refusal(NamedTuple):
    """One refusal of a caller who could not be identified: counted, without content."""

    minute: int
    reason: str
    times: int = 1


class SpendRow(NamedTuple):
    """What one call adds to a day's sums: one row per day and combination of what FinOps group by.

    `id` is the digest of these columns (see `spend.rollup`); money is micro-dollars.
    """

    day: int
    """Since 1970, UTC, of the call's start."""
    id: bytes
    agent_id: str
    team: str
    user_id: str
    model: str
    target: str
    provider: str
    tags: str
    """Comma list, sorted."""
    requests: int = 0
    refused: int = 0
    failed: int = 0
    retried: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    micro_usd: int = 0
    lost_micro_usd: int = 0
    guessed_micro_usd: int = 0
    """The part that the upstream didn't report: estimated or partial."""


class ToolSpendRow(NamedTuple):
    """One tool's share of a call that proposed it: the call's tokens and money, split over its tool calls."""

    day: int
    id: bytes
    agent_id: str
    team: str
    user_id: str
    model: str
    target: str
    provider: str
    tags: str
    tool: str
    requests: int = 0
    """1 for the first tool of a call, so that every call counts once."""
    tool_calls: int = 0
    denied: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    micro_usd: int = 0


class PriceRow(NamedTuple):
    """A price that costs were counted with, by its version; inserted where it isn't there yet."""

    version: str
    provider: str
    model: str
    rates: str
    """JSON."""
    at_us: int


class FreezeRow(NamedTuple):
    """An agent's standing; `frozen_us` is None once it's thawed."""

    agent_id: str
    frozen_us: int | None
    by: str
    reason: str
    changed_us: int


class DeliveryRow(NamedTuple):
    """An event on its way to a webhook."""

    id: str
    webhook: str
    event: str
    body: str
    created_us: int
    next_us: int


class OthersExpire(NamedTuple):
    """Every active key of the agent but `id` ends at `expires_us`, where it doesn't before."""

    expires_us: int
    changed_us: int
    agent_id: str
    id: str


class Evidence(msgspec.Struct, frozen=True):
    """Everything that one unit of work adds, in one transaction."""

    records: tuple[Draft, ...] = ()
    blobs: tuple[BlobDraft, ...] = ()
    opens: tuple[CallOpen, ...] = ()
    closes: tuple[CallClose, ...] = ()
    runs: tuple[RunOpen, ...] = ()
    run_updates: tuple[RunUpdate, ...] = ()
    tool_calls: tuple[ToolCallRow, ...] = ()
    answered: tuple[Answered, ...] = ()
    responses: tuple[ResponseRow, ...] = ()
    keys: tuple[KeyRow, ...] = ()
    revoked: tuple[KeyRevoked, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    spend: tuple[SpendRow, ...] = ()
    tool_spend: tuple[ToolSpendRow, ...] = ()
    prices: tuple[PriceRow, ...] = ()
    run_ends: tuple[RunEnd, ...] = ()
    freezes: tuple[FreezeRow, ...] = ()
    others_expire: tuple[OthersExpire, ...] = ()
    deliveries: tuple[DeliveryRow, ...] = ()
    counted: tuple[Counted, ...] = ()
    approvals: tuple[ApprovalRow, ...] = ()
    approval_changes: tuple[ApprovalChange, ...] = ()
    votes: tuple[VoteRow, ...] = ()
    links: tuple[LinkRow, ...] = ()
    links_used: tuple[LinkUsed, ...] = ()
    run_events: tuple[RunEventRow, ...] = ()
    effects: tuple[EffectRow, ...] = ()
    unseen: tuple[UnseenRow, ...] = ()
    classified: tuple[ClassifiedRow, ...] = ()
    checkpoints: tuple[CheckpointRow, ...] = ()
    legal_holds: tuple[LegalHoldRow, ...] = ()
    purged: tuple[PurgedRow, ...] = ()
    prefixes: tuple[PrefixRow, ...] = ()
    traces: tuple[TraceRow, ...] = ()
    rule_hits: tuple[RuleHitRow, ...] = ()


NOTHING = Evidence()
