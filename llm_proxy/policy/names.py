"""The names that a verdict's `rule` may hold. Stable: records, tests and dashboards go by them."""

from __future__ import annotations

from collections.abc import Iterator

from llm_proxy.policy.schema import PolicyFile, Tier

BAD_ARGS = "bad-args"
UNKNOWN_TOOL = "unknown-tool"
SCHEMA = "schema"
PROHIBITED = "prohibited"
ROLE = "role"
AGENT_TOOLS = "agent-tools"
ENVELOPE = "envelope"
FROZEN = "frozen"
RULE_ERROR = "rule-error"
POSTURE = "posture"
NO_APPROVER = "no-approver"
PROVIDER_RUN = "provider-run"
UNDECLARED_SERVER_TOOL = "undeclared-server-tool"
APPROVED = "approved"
APPROVAL_PENDING = "approval-pending"
APPROVAL_DENIED = "approval-denied"
APPROVAL_EXPIRED = "approval-expired"
TOO_MANY_APPROVALS = "too-many-approvals"
SIBLING_DENIED = "sibling-denied"
REDACTED_ARGS = "redacted-args"

ANSWERS = frozenset(
    {NO_APPROVER, APPROVED, APPROVAL_PENDING, APPROVAL_DENIED, APPROVAL_EXPIRED, TOO_MANY_APPROVALS}
)
"""What becomes of an ask; the rule that asked is then the first hit."""
UNANSWERED = frozenset({APPROVAL_PENDING, APPROVAL_EXPIRED, TOO_MANY_APPROVALS, SIBLING_DENIED})
"""Nobody said no to the call itself: these are no denials that freeze."""

BUILT_IN = frozenset(
    {
        BAD_ARGS,
        UNKNOWN_TOOL,
        SCHEMA,
        PROHIBITED,
        ROLE,
        AGENT_TOOLS,
        ENVELOPE,
        FROZEN,
        RULE_ERROR,
        POSTURE,
        PROVIDER_RUN,
        UNDECLARED_SERVER_TOOL,
        SIBLING_DENIED,
        REDACTED_ARGS,
        *ANSWERS,
    }
)


def check(argument: str) -> str:
    return f"check:{argument}"


def tier(value: Tier) -> str:
    return f"tier:{value}"


def cap(window: str, unit: str) -> str:
    return f"cap:{window}.{unit}"


def sum_(identity: str) -> str:
    return f"sum:{identity}"


def own_rules(file: PolicyFile) -> tuple[str, ...]:
    """The ids of `rules` and `sequence`, in file order."""
    return (*(rule.id for rule in file.rules), *(step.id for step in file.sequence))


def possible(file: PolicyFile) -> Iterator[str]:
    """Every name that a verdict of this policy may carry."""
    elsewhere = {ENVELOPE, PROVIDER_RUN, UNDECLARED_SERVER_TOOL, SIBLING_DENIED, REDACTED_ARGS}
    yield from BUILT_IN - ANSWERS - elsewhere
    yield from own_rules(file)
    yield from (tier(value) for value in Tier if value is not Tier.PROHIBITED)
    yield from {check(argument) for tool in file.tools.values() for argument in tool.check}
    yield from (cap("run", unit) for unit in type(file.caps.run).model_fields)
    yield from (cap("day", unit) for unit in type(file.caps.day).model_fields)
    yield from (sum_(entry.id) for entry in file.caps.sums)
