"""Freezing and thawing on an operator's word: what is asked, checked, and what is answered."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.reading import unknown_agent
from llm_proxy.admin.shown import maybe_iso
from llm_proxy.config import Config
from llm_proxy.identity import freezing
from llm_proxy.identity.freezing import AgentEvent
from llm_proxy.identity.issuing import Via
from llm_proxy.records.batch import Job
from llm_proxy.records.standing import Frozen, frozen_agent


class Reason(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why an agent is frozen, which callers are told, or thawed, where it may be left out."""

    reason: str = ""


class AgentStanding(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an agent may call. `changed` is false where it was so before; then the first word stands."""

    id: str
    frozen: bool
    changed: bool
    since_us: int | None
    since_at: str | None
    by: str
    """The operator who froze it."""
    reason: str


def frozen_now(config: Config, connection: Connection | None, agent_id: str) -> Frozen | None:
    """How the agent is frozen, if it is. Raises `NotFound` for one that nobody knows."""
    found = None if connection is None else frozen_agent(connection, agent_id)
    if found is None and agent_id not in config.agents:
        raise unknown_agent(agent_id, config.agents)
    return found


def freeze(agent_id: str, wish: Reason, now_us: int, *, by: str, via: Via) -> Job:
    """Raises `Unclear` without a reason that can be told."""
    event = _event(agent_id, wish, by, via)
    if not event.reason:
        raise Unclear("Say why: the reason is told to whoever calls as the agent, and recorded.")
    return freezing.freeze(event, now_us)


def thaw(agent_id: str, wish: Reason, now_us: int, *, by: str, via: Via) -> Job:
    """Raises `Unclear` for a reason that can't be recorded."""
    return freezing.thaw(_event(agent_id, wish, by, via), now_us)


def standing(agent_id: str, frozen: Frozen | None, *, changed: bool) -> AgentStanding:
    return AgentStanding(
        id=agent_id,
        frozen=frozen is not None,
        changed=changed,
        since_us=frozen.since_us if frozen else None,
        since_at=maybe_iso(frozen.since_us if frozen else None),
        by=frozen.by if frozen else "",
        reason=frozen.reason if frozen else "",
    )


def _event(agent_id: str, wish: Reason, by: str, via: Via) -> AgentEvent:
    try:
        reason = freezing.checked_reason(wish.reason)
    except ValueError as error:
        raise Unclear(str(error)) from None
    return AgentEvent(agent_id=agent_id, reason=reason, by=by, via=via)
