"""What the engine is asked and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llm_proxy.policy import names
from llm_proxy.policy.schema import Decision, Effect


@dataclass(frozen=True, slots=True)
class Proposed:
    """A tool call as the model wrote it; `arguments` is raw JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one call. `rule` decided; `hits` are the others that would have restricted it too.

    `why` is for the record, `tell_model` for the model; neither quotes an argument's value.
    `digest` names the exact action (`canonical.digest`).
    """

    decision: Decision
    rule: str
    why: str
    tell_model: str
    effect: Effect
    hits: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """One verdict per call. `identity`: whether each call's `call.identity_from_user` held; empty where no
    rule looks at it, or the calls could not be read."""

    verdicts: tuple[Verdict, ...]
    identity: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class ResultLabel:
    """What a tool result does to a run: its sensitivity can only rise to this rank."""

    sensitivity: int
    untrusted: bool
    rejected: bool = False
    """The posture refuses results of calls that we never released."""


def without_approver(verdict: Verdict) -> Verdict:
    """The verdict where nobody may approve: an ask is a deny, and its rule joins the hits."""
    if verdict.decision is not Decision.ASK:
        return verdict
    why = f"{verdict.rule} asks for an approval, and nobody can give one"
    if verdict.why:
        why += f" ({verdict.why})"
    tell = verdict.tell_model or "This action needs a person's approval, and nobody can give one here"
    return answered(verdict, Decision.DENY, names.NO_APPROVER, why, tell)


def approved(verdict: Verdict, approval_id: str) -> Verdict:
    """An ask that a grant lets through."""
    return answered(verdict, Decision.ALLOW, names.APPROVED, f"approved as {approval_id}", "")


def unapproved(verdict: Verdict, rule: str, approval_id: str) -> Verdict:
    """An ask to which nobody said yes. `rule` says how that came: pending, denied, expired, never put."""
    match rule:
        case names.APPROVAL_PENDING:
            why = f"NOT EXECUTED, waiting for approval {approval_id}"
            tell = "Go on without it, or make exactly this call again later: once approved it is let through"
        case names.APPROVAL_EXPIRED:
            why = f"nobody decided approval {approval_id} in time"
            tell = "It was not executed. Make the call again if it is still needed"
        case names.TOO_MANY_APPROVALS:
            why = "NOT EXECUTED, and no person was asked: too many approvals wait already"
            tell = "Wait until some are decided before you make this call again"
        case _:
            why = f"a person denied approval {approval_id}"
            tell = "It was not executed. Do not try it again; do something else"
    return answered(verdict, Decision.DENY, rule, why, tell)


def with_sibling(verdict: Verdict) -> Verdict:
    """A call that passed, of a reply that is refused as a whole."""
    why = "another call of the same reply was denied, and such replies are refused whole"
    return answered(verdict, Decision.DENY, names.SIBLING_DENIED, why, "")


def answered(verdict: Verdict, decision: Decision, rule: str, why: str, tell_model: str) -> Verdict:
    """What became of it: `rule` decides, and the one that did before is the first hit."""
    hits = (verdict.rule, *verdict.hits)
    return replace(verdict, decision=decision, rule=rule, why=why, tell_model=tell_model, hits=hits)
