"""An approval as listings show it."""

from __future__ import annotations

import msgspec

from llm_proxy.records.approvals import ApprovalStatus


class ApprovalLine(msgspec.Struct, frozen=True, kw_only=True):
    """An action that was to be approved, without its arguments."""

    id: str
    status: ApprovalStatus
    agent_id: str
    run_id: str
    call_id: str
    user_id: str
    tool: str
    effect: str
    risk: str
    rule: str
    """What asked."""
    why: str
    approvers: tuple[str, ...]
    """As the policy says it: operators' ids, and `group:NAME`."""
    quorum: int
    approved_by: tuple[str, ...]
    """Who said yes so far."""
    requested_us: int
    requested_at: str
    expires_us: int
    expires_at: str
    decided_us: int | None
    decided_at: str | None
