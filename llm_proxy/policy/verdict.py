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
    return replace(
        verdict,
        decision=Decision.DENY,
        rule=names.NO_APPROVER,
        why=why,
        tell_model=tell,
        hits=(verdict.rule, *verdict.hits),
    )
