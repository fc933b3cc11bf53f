"""Every question, in the order in which it's asked."""

from __future__ import annotations

from collections.abc import Callable

from llm_proxy.posture import acts, kept, who
from llm_proxy.posture.answers import Answer, Posture, Verdict
from llm_proxy.posture.facts import Facts
from llm_proxy.records.times import iso

QUESTIONS: tuple[Callable[[Facts], Answer], ...] = (
    who.identity,
    who.permissions,
    acts.tools,
    acts.approvals,
    kept.logging,
    kept.reconstruction,
    kept.authority,
    acts.inspection,
    acts.judgement,
    who.owners,
    who.operators,
    who.budgets,
    kept.durability,
    kept.proof,
    kept.export,
    kept.exposure,
)


def posture(facts: Facts) -> Posture:
    answers = tuple([ask(facts) for ask in QUESTIONS])
    file = facts.policy
    return Posture(
        ready=all(answer.verdict in (Verdict.YES, Verdict.NOT_APPLICABLE) for answer in answers),
        at_us=facts.now_us,
        at=iso(facts.now_us),
        config=f"{facts.config.path.name} {facts.config.config_sha256[:12]}",
        policy=f"{file.policy.id} {file.policy.version} {facts.policy_sha256[:12]}" if file else "",
        days=facts.days,
        answers=answers,
    )
