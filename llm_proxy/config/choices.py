"""The closed choices of the config."""

from __future__ import annotations

from enum import StrEnum


class Durability(StrEnum):
    """`strict`: a reply is released only once its record is committed."""

    STRICT = "strict"
    RELAXED = "relaxed"


class Content(StrEnum):
    """What of prompts and replies the records keep."""

    FULL = "full"
    REDACTED = "redacted"
    DIGEST = "digest"


class Protocol(StrEnum):
    HTTP = "http/protobuf"
    GRPC = "grpc"


class LogLevel(StrEnum):
    """What is logged: that, and what is graver."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Unpriced(StrEnum):
    """What happens to a model without a price under a usd limit."""

    REFUSE = "refuse"
    FREE = "free"


class Translation(StrEnum):
    LENIENT = "lenient"
    STRICT = "strict"


class DialectName(StrEnum):
    """A wire format that a target speaks."""

    OPENAI_CHAT = "openai_chat"
    OPENAI_RESPONSES = "openai_responses"
    ANTHROPIC_MESSAGES = "anthropic_messages"
    OPENAI_COMPLETIONS = "openai_completions"
    OPENAI_EMBEDDINGS = "openai_embeddings"


class StrategyName(StrEnum):
    ORDERED = "ordered"
    WEIGHTED = "weighted"
    LEAST_BUSY = "least-busy"
    LEAST_LATENCY = "least-latency"
    LOWEST_COST = "lowest-cost"


class Affinity(StrEnum):
    """`run`: a run's calls stay on the target that answered its last one, whose prompt cache they warmed."""

    RUN = "run"
    NONE = "none"


class OnCut(StrEnum):
    """What follows when a target stops in the middle of a streamed reply of which some was released."""

    ERROR = "error"
    CONTINUE = "continue"


class OnLeave(StrEnum):
    """What happens to the target's reply when the caller leaves."""

    CANCEL = "cancel"
    DRAIN = "drain"


class Hold(StrEnum):
    """What of a streamed reply is held before it comes: the longest one, or what its like had lately."""

    WORST_CASE = "worst_case"
    EXPECTED = "expected"


class Role(StrEnum):
    """What an operator may do. `investigator` may read content."""

    ADMIN = "admin"
    APPROVER = "approver"
    INVESTIGATOR = "investigator"
    SPEND_READER = "spend-reader"


class Event(StrEnum):
    """What webhooks can be told of."""

    BUDGET_WARNED = "budget.warned"
    """What was used of a limit reached its `warn_at`: once per span of its window."""
    BUDGET_EXCEEDED = "budget.exceeded"
    """What was used of a limit that only warns reached its maximum: once per span."""
    BUDGET_REFUSED = "budget.refused"
    """A limit had no room for a call: once per span and process."""
    AGENT_FROZEN = "agent.frozen"
    AGENT_THAWED = "agent.thawed"
    KEY_ISSUED = "key.issued"
    KEY_CHANGED = "key.changed"
    KEY_REVOKED = "key.revoked"
    RUN_ENDED = "run.ended"
    POLICY_CHANGED = "policy.changed"
    """A changed policy file came into force, or could not: once per process."""
    APPROVAL_REQUESTED = "approval.requested"
    """A tool call waits for a person."""
    APPROVAL_DECIDED = "approval.decided"
    """It was approved or denied, or its time ran out."""
