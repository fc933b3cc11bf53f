"""Freezing and thawing an agent: pure functions from a word to the job that the writer commits."""

from __future__ import annotations

import msgspec

from llm_proxy.identity.issuing import Via
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, FreezeRow, RecordKind

MAX_REASON = 500
"""Characters."""


class AgentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `agent.frozen` and `agent.thawed`."""

    agent_id: str
    reason: str
    by: str
    """The operator's id, or `admin_token`."""
    via: Via


def checked_reason(text: str) -> str:
    """`text` as it may stand in errors, records and listings. Raises ValueError."""
    text = text.strip()
    if len(text) > MAX_REASON or not text.isprintable():
        raise ValueError(
            f"the reason is over {MAX_REASON} characters or holds some that don't print: write it shorter, "
            "on one line"
        )
    return text


def freeze(event: AgentEvent, now_us: int) -> Job:
    """The job by which the agent may not call; of two at once the first stands. Its value is None."""
    row = FreezeRow(event.agent_id, now_us, event.by, event.reason, now_us)
    return _job(RecordKind.AGENT_FROZEN, event, row)


def thaw(event: AgentEvent, now_us: int) -> Job:
    """The job by which the agent may call again; its value is None."""
    row = FreezeRow(event.agent_id, None, event.by, event.reason, now_us)
    return _job(RecordKind.AGENT_THAWED, event, row)


def _job(kind: RecordKind, event: AgentEvent, row: FreezeRow) -> Job:
    draft = Draft(kind, row.changed_us, None, None, event.agent_id, msgspec.json.encode(event))
    wrote = Wrote(None, Evidence(records=(draft,), freezes=(row,)))

    def then(_found: Found) -> Wrote:
        return wrote

    return Job(then)
