"""The shapes of every listing and record as JSON: the same on the command line and under `/admin`.

Money is USD as a number beside exact micro-dollars; times are Unix microseconds beside ISO 8601 in UTC.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.admin.approval_lines import ApprovalLine
from llm_proxy.admin.story import NewMessage
from llm_proxy.archive.listings import CallRow, RefusalRow
from llm_proxy.chat.reply import ChoiceReply
from llm_proxy.records.view import (
    Attempt,
    CostLabel,
    Decision,
    Problem,
    ProviderUse,
    Status,
    ToolResultView,
    Withheld,
)
from llm_proxy.runs.effects import Effect
from llm_proxy.runs.status import RunStatus, Use
from llm_proxy.runs.wish import Trigger


class CallLine(CallRow, frozen=True, kw_only=True):
    started_at: str
    ended_at: str | None
    cost_usd: float


class RunStands(msgspec.Struct, frozen=True, kw_only=True):
    """How a run was opened, and whether it may go on."""

    purpose: str
    trigger: Trigger | None
    parent_agent_id: str
    """Whose run the parent is; empty where `parent_run_id` is a trace link and no more."""
    status: RunStatus
    why: str
    """Why it's not open, empty where it is."""
    envelope: dict[str, Any] | None
    """As it was opened, with usd in dollars; null for a run that nobody opened."""
    left: dict[str, float | int]
    """By unit: the least that its envelope, those above it and the limits per run leave."""
    expires_us: int | None
    expires_at: str | None
    """Its own end, or that of a run above it where that comes first."""
    ended_us: int | None
    ended_at: str | None


class RunLine(RunStands, frozen=True, kw_only=True):
    run_id: str
    agent_id: str
    parent_run_id: str
    team: str
    user_id: str
    inferred: bool
    started_us: int
    started_at: str
    last_us: int
    last_at: str
    """When the newest call began."""
    calls: int
    refused: int
    failed: int
    open: int
    denials: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    cost_micro_usd: int


class RefusalLine(RefusalRow, frozen=True, kw_only=True):
    at: str


class AttemptShown(Attempt, frozen=True, kw_only=True, omit_defaults=False):
    pass


class DecisionShown(Decision, frozen=True, kw_only=True, omit_defaults=False):
    pass


class ResultShown(ToolResultView, frozen=True, kw_only=True, omit_defaults=False):
    pass


class WithheldShown(Withheld, frozen=True, kw_only=True, omit_defaults=False):
    pass


class ProviderUseShown(ProviderUse, frozen=True, kw_only=True, omit_defaults=False):
    pass


class ProblemShown(Problem, frozen=True, kw_only=True, omit_defaults=False):
    pass


class UsageShown(msgspec.Struct, frozen=True, kw_only=True):
    """Input includes cached and cache-written tokens; output includes reasoning."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    total_tokens: int


class ChoiceShown(ChoiceReply, frozen=True, kw_only=True, omit_defaults=False):
    pass


class ReplyShown(msgspec.Struct, frozen=True, kw_only=True):
    """A reply in typed parts. `complete` is false where it was cut."""

    id: str
    model: str
    choices: tuple[ChoiceShown, ...]
    error: str
    complete: bool


class CallOutline(msgspec.Struct, frozen=True, kw_only=True):
    """One call, less its request."""

    id: str
    run_id: str
    agent_id: str
    status: Status
    model: str
    served_model: str
    target: str
    provider: str
    attempts: tuple[AttemptShown, ...]
    usage: UsageShown | None
    cost_usd: float
    cost_micro_usd: int
    cost_label: CostLabel | None
    price: str
    """The version of the price that the cost was counted with."""
    tier: str
    """The service tier that it was priced in, where it isn't the standard one."""
    started_at: str
    started_us: int
    first_event_s: float | None
    total_s: float | None
    overhead_ms: float | None
    dialect: str
    upstream_dialect: str
    """What the target spoke, where that is not the caller's dialect."""
    operation: str
    dropped: tuple[str, ...]
    """What of the request the target was not told."""
    masked: bool
    """Secrets, or what the policy says, are masked in its content as it is kept."""
    kept: bool
    """False where some of its content is not kept: deleted by retention, or never stored."""
    reasoning_withheld: bool
    """Reasoning tokens were counted and no words of it came."""
    stream: bool
    parent_run_id: str
    run_inferred: bool
    user_id: str
    user_verified: bool
    """The credential named the user, not only the caller."""
    actors: tuple[str, ...]
    """Who acts for the user by the credential's word, the nearest first."""
    team: str
    role: str
    key_id: str
    tags: tuple[str, ...]
    traceparent: str
    policy: str
    held: dict[str, int]
    topped_up: dict[str, int]
    finish_reasons: tuple[str, ...]
    problem: ProblemShown | None
    decisions: tuple[DecisionShown, ...]
    results: tuple[ResultShown, ...]
    withheld: tuple[WithheldShown, ...]
    """What it declared and the model was not offered."""
    provider_tools: tuple[ProviderUseShown, ...]
    """What the provider ran itself, where a policy is in force."""
    reply: ReplyShown | None
    """What the model emitted."""
    released_differs: bool
    received: ReplyShown | None
    """What the agent received, where that differs."""


class CallShown(CallOutline, frozen=True, kw_only=True):
    """One call with its request: parsed JSON where it is JSON, else text."""

    request: msgspec.Raw | str | None
    sent: msgspec.Raw | str | None
    """The request as sent upstream, where it differed."""


class StepShown(CallOutline, frozen=True, kw_only=True):
    """One call of a run, with the messages that earlier calls of the run did not hold."""

    new_messages: tuple[NewMessage, ...]


class ChildRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that names another as its parent. `linked`: by a trace link and no more."""

    run_id: str
    agent_id: str
    linked: bool
    purpose: str
    started_us: int
    started_at: str
    last_us: int
    """When its newest call began."""
    last_at: str
    calls: int
    denials: int
    cost_usd: float
    cost_micro_usd: int


class RunHappening(msgspec.Struct, frozen=True, kw_only=True):
    """Something that rules may require, such as `human-checkpoint`, when it last happened in a run."""

    event: str
    by: str
    at_us: int
    at: str


class RunShown(RunStands, frozen=True, kw_only=True):
    """A run with its first calls, the oldest first; `call_count` says how many there are."""

    run_id: str
    agent_id: str
    parent_run_id: str
    team: str
    user_id: str
    inferred: bool
    started_at: str
    started_us: int
    last_at: str
    last_us: int
    call_count: int
    refused: int
    failed: int
    open: int
    denials: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    cost_micro_usd: int
    limits: tuple[Use, ...]
    """What binds the run: its envelope, those above it, and the limits per run."""
    effects: tuple[Effect, ...]
    """Side effects that the agent and its tools reported."""
    children: tuple[ChildRun, ...]
    """Runs that it started, the first hundred."""
    more_children: bool
    """Whether it started further ones."""
    approvals: tuple[ApprovalLine, ...]
    """What waited for a person in it, in order, without arguments: those stand with the calls. The last
    thousand."""
    more_approvals: bool
    """Whether there were others before these."""
    events: tuple[RunHappening, ...]
    calls: tuple[StepShown, ...]
