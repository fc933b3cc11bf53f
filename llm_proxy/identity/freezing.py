"""Freezing and thawing an agent: pure functions from a word to the job that the writer commits."""

from __future__ import annotations

import msgspec

from llm_proxy.identity.issuing import Via
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, FreezeRow, RecordKind

MAX_REASON = 500
"""Characters."""


class AgentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `agent.frozen` and `agent.thawed`."""

    agent_id: str
    reason: str
    by: str
    """The operator's id, `admin_token`, or `policy`."""
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
    evidence = frozen(event, now_us)
    return Job(lambda _: Wrote(None, evidence))


def frozen(event: AgentEvent, now_us: int, call_id: str | None = None, run_id: str | None = None) -> Evidence:
    """What freezes the agent, and the call that brought it about, where one did."""
    row = FreezeRow(event.agent_id, now_us, event.by, event.reason, now_us)
    body = msgspec.json.encode(event)
    draft = Draft(RecordKind.AGENT_FROZEN, now_us, call_id, run_id, event.agent_id, body)
    return Evidence(records=(draft,), freezes=(row,))


def thaw(event: AgentEvent, now_us: int) -> Job:
    """The job by which the agent may call again; its value is None."""
    row = FreezeRow(event.agent_id, None, event.by, event.reason, now_us)
    draft = Draft(RecordKind.AGENT_THAWED, now_us, None, None, event.agent_id, msgspec.json.encode(event))
    evidence = Evidence(records=(draft,), freezes=(row,))
    return Job(lambda _: Wrote(None, evidence))
