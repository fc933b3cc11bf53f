"""The JSON bodies of what is recorded of approvals: `approval.requested`, `.voted`, `.decided`, `.used`."""

from __future__ import annotations

import msgspec


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """An action waits for a person. What would run is the text at `place` among the `arguments_at`."""

    id: str
    tool: str
    effect: str
    risk: str
    owner: str
    """Of the tool, as the policy has it."""
    tool_call_id: str
    user_id: str
    arguments: str = ""
    """The text itself, in earlier versions."""
    arguments_at: str = ""
    """The address of the arguments of all the reply's calls."""
    place: int = 0
    digest: str
    schema_hash: str
    policy: str
    """SHA-256 of the file."""
    policy_id: str
    policy_version: str
    rule: str
    why: str
    approval: str
    """The entry of `approvals` that it goes by."""
    approvers: tuple[str, ...]
    quorum: int
    uses: int
    valid_us: int
    expires_us: int


class Voted(msgspec.Struct, frozen=True, kw_only=True):
    """One person's word."""

    id: str
    tool: str
    operator: str
    decision: str
    """approve | deny"""
    reason: str
    via: str
    digest: str


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended; `by` is empty where it expired."""

    id: str
    tool: str
    status: str
    by: tuple[str, ...]
    digest: str
    valid_until_us: int | None = None


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """A grant let an action through."""

    id: str
    tool: str
    tool_call_id: str
    digest: str
    uses_left: int


encode = msgspec.json.Encoder().encode
read_requested = msgspec.json.Decoder(Requested).decode
read_voted = msgspec.json.Decoder(Voted).decode
read_decided = msgspec.json.Decoder(Decided).decode
read_used = msgspec.json.Decoder(Used).decode
