"""One recorded call as a reader sees it: the shape behind `calls show`, `/admin` and the exported span."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from llm_proxy.chat.events import Usage
from llm_proxy.chat.reply import OPAQUE, Reply


class Status(StrEnum):
    """How a call ended. `open` is in flight; `interrupted` was found unfinished after a crash."""

    OPEN = "open"
    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"
    CUT = "cut"
    CLIENT_GONE = "client_gone"
    INTERRUPTED = "interrupted"


class CostLabel(StrEnum):
    REPORTED = "reported"
    ESTIMATED = "estimated"
    PARTIAL = "partial"
    UNPRICED = "unpriced"


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try at one target. Times are seconds since the call began."""

    target: str
    provider: str
    model: str
    api_key: int = 0
    """Which of the target's API keys was used, from 1; 0 where it has one at most."""
    started_s: float
    ended_s: float
    first_event_s: float | None = None
    resumed: bool = False
    """It was asked to go on with what the agent had received of a reply that was cut."""
    replan: int = 0
    """It was told that all it wanted to call was denied, the how manieth time."""
    status: int | None = None
    failure: str = ""
    """Empty when it succeeded, else a `routing.failures.FailureKind` value."""
    detail: str = ""
    """What happened, in our words: no upstream body, no secret."""


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A verdict on one proposed tool call. `arguments` is the raw JSON text that was judged, empty where it
    was not asked for or is not `kept` any more."""

    choice: int = 0
    index: int = 0
    tool_call_id: str
    tool: str
    arguments: str = ""
    decision: str
    """allow | deny; `ask` in shadow only, where what would have asked a person passed. In force an ask
    becomes an allow by rule `approved`, or a deny by `approval-denied`, `-expired`, `-pending` or
    `no-approver`; the rule that asked is then the first hit."""
    rule: str = ""
    why: str = ""
    tell_model: str = ""
    effect: str = "read"
    hits: tuple[str, ...] = ()
    policy: str = ""
    """SHA-256 (hex) of the policy file that judged; empty where no policy is in force."""
    digest: str = ""
    """Of the exact action: SHA-256 of the canonical `[tool, arguments]`; empty where nothing read it."""
    shadow: bool = False
    approval: str = ""
    """The approval that let the call through, or that it waits for."""
    custom: bool = False
    """`arguments` is a freeform tool's text: what was judged is `{"input": text}`."""
    masked: bool = False
    """Something of `arguments` is not as it was judged."""
    received: str = ""
    """The digest of what the agent got, where a redaction wrote the arguments anew."""
    kept: bool = True
    """False where retention deleted the arguments, or content is never kept."""

    @property
    def released(self) -> bool:
        """Whether the call reached the agent: allowed, or judged in shadow."""
        return self.decision == "allow" or self.shadow


class Withheld(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that the request declared and the model was not offered, and the rule that says so."""

    tool: str
    rule: str
    why: str = ""
    shadow: bool = False
    """It was offered all the same: the policy is in shadow."""


class ProviderUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that the provider ran itself, under a policy: seen in the reply, too late to stop."""

    tool: str
    id: str = ""
    rule: str = ""
    """Why it should not have run; empty where it was declared and let through."""


class ToolResultView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool result that came in with this request for the first time."""

    tool_call_id: str
    tool: str = ""
    digest: str = ""
    """SHA-256 (hex) of what it says, as received."""
    known: bool = True
    """False where no such call was ever released to this run."""
    bytes: int = 0
    """Of its content, as it stood in the request."""
    label: str = ""
    """The sensitivity that it brought into the run."""
    untrusted: bool = False
    redacted: dict[str, int] = {}
    """How many values of it each rule replaced before it went upstream, by the rule's id."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    kind: str
    message: str
    status: int = 0


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What one target sent of a reply that another went on with. `chars` of its text reached the agent."""

    dialect: str
    emitted: bytes | None
    chars: int


class CallView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything one call left. Times are Unix microseconds or seconds since `started_us`.

    Content fields (`request`, `sent`, `reply`, `emitted`, also of a piece, `released`) are None where the
    content was not asked for, or is no longer kept.
    """

    id: str
    run_id: str
    agent_id: str
    started_us: int
    status: Status
    parent_run_id: str = ""
    run_inferred: bool = False
    team: str = ""
    role: str = ""
    user_id: str = ""
    user_verified: bool = False
    """The credential named the user, not only the caller."""
    actors: tuple[str, ...] = ()
    """Who acts for the user by the credential's word, the nearest first."""
    key_id: str = ""
    tags: tuple[str, ...] = ()
    traceparent: str = ""
    dialect: str = "openai_chat"
    upstream_dialect: str = ""
    """What the last target spoke, where it is not `dialect`; `sent` and `emitted` are in it."""
    dropped: tuple[str, ...] = ()
    """What of the request the last target was not told, since its dialect or provider can't take it."""
    operation: str = "chat"
    stream: bool = False
    model: str = ""
    """The name that was asked for."""
    served_model: str = ""
    target: str = ""
    provider: str = ""
    server_address: str = ""
    attempts: tuple[Attempt, ...] = ()
    first_event_s: float | None = None
    total_s: float | None = None
    overhead_ms: float | None = None
    finish_reasons: tuple[str, ...] = ()
    usage: Usage | None = None
    cost_micro_usd: int = 0
    cost_label: CostLabel | None = None
    price: str = ""
    """The version of the price that the cost was counted with."""
    tier: str = ""
    """The service tier that it was priced in, where it isn't the standard one."""
    problem: Problem | None = None
    decisions: tuple[Decision, ...] = ()
    results: tuple[ToolResultView, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    """What it declared and the model was not offered."""
    provider_tools: tuple[ProviderUse, ...] = ()
    """What the provider ran itself, where a policy is in force."""
    policy: str = ""
    held: dict[str, int] = {}
    """What the budgets held for it before it was sent, by unit: its worst case, or what was expected."""
    topped_up: dict[str, int] = {}
    """What they held beyond that while its reply came."""
    request: bytes | None = None
    """The request's body exactly as received."""
    sent: bytes | None = None
    """The body as sent upstream, where it differed."""
    emitted: bytes | None = None
    """The reply's body, or its whole event stream, exactly as the model's server sent it."""
    pieces: tuple[Piece, ...] = ()
    """What earlier targets had sent of the reply, where it was cut and `emitted` goes on with it."""
    rounds: tuple[Piece, ...] = ()
    """Replies whose calls were all denied, before `emitted`: the model was told so and asked again."""
    released: bytes | None = None
    """What the agent received, where it differed from `emitted`."""
    masked: bool = False
    """Secrets, or what a policy says, are masked in its content: that is not byte for byte what went by."""
    kept: bool = True
    """False where content was asked for and some of it is not kept: deleted, or never stored."""
    reply: Reply | None = None
    """`emitted`, and the `pieces` and `rounds` before it, folded into typed parts."""

    @property
    def reasoning_withheld(self) -> bool:
        """The model reasoned (its tokens are counted), and its provider gave none of the words."""
        if self.reply is None or self.usage is None or not self.usage.reasoning:
            return False
        return not any(
            part.text and part.kind not in OPAQUE
            for choice in self.reply.choices
            for part in choice.reasoning
        )
