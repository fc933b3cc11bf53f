"""What one unit of work leaves in the store: drafts of rows, before the writer chains and inserts them."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import NamedTuple

import msgspec


class RecordKind(StrEnum):
    """Kinds of evidence. A call has one `call.opened` and one `call.closed`, or one `call.refused`."""

    CALL_OPENED = "call.opened"
    CALL_CLOSED = "call.closed"
    CALL_REFUSED = "call.refused"
    VERDICTS = "call.verdicts"
    KEY_ISSUED = "key.issued"
    KEY_REVOKED = "key.revoked"
    STORE_BACK = "store.back"
    """The store takes records again after it didn't."""


TOOL_CALL_ID_CHARS = 256


def column(text: str, most: int = 256) -> str:
    """`text` as a text column holds it: at most `most` characters, and no NUL, which PostgreSQL refuses."""
    return text[:most].replace("\0", "\ufffd")


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
    """Content to be stored under `id`, unless it's there."""

    id: bytes
    epoch: int
    content: bytes


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
    reasoning_tokens: int | None
    micro_usd: int
    cost_label: str | None
    error: str | None
    id: str


class RunOpen(NamedTuple):
    """A row of `state_runs`, inserted where it isn't there yet."""

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


class RunUpdate(NamedTuple):
    """What the policy must remember of a run; the order is that of the UPDATE."""

    revision: int
    sensitivity: int
    untrusted: bool
    labels: str
    denials: int
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
    """A tool result came in for a call that was released."""

    answered_us: int
    agent_id: str
    run_id: str
    tool_call_id: str


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
    revoked_us: int
    id: str


class Refusal(NamedTuple):
    """One refusal of a caller who could not be identified: counted, without content."""

    minute: int
    reason: str
    times: int = 1


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


NOTHING = Evidence()
