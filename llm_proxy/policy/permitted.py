"""The tools that a caller may ever be given: the agent's own list and its run's envelope, policy or not.

They are the caller's identity, no judgement of an action: a policy in shadow doesn't lift them.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from llm_proxy.policy import names
from llm_proxy.policy.globs import matches
from llm_proxy.policy.schema import Decision
from llm_proxy.policy.verdict import Verdict

ALWAYS = frozenset({names.AGENT_TOOLS, names.ENVELOPE, names.SIBLING_DENIED})
"""Rules that hold in shadow too."""


@dataclass(frozen=True, slots=True)
class Permitted:
    """The agent's names and globs, and what each envelope that lists tools allows."""

    agent: Sequence[str]
    envelopes: Sequence[Container[str]] = ()

    @property
    def every(self) -> bool:
        """Whether nothing is left out."""
        return "*" in self.agent and not self.envelopes

    @property
    def whose(self) -> str:
        """Who may not be given every tool."""
        return "this run" if "*" in self.agent else "this agent"

    def judged(self, verdict: Verdict, tool: str) -> Verdict:
        """`verdict`, or a denial where the tool stands outside; what decided before joins the hits."""
        if not any(matches(glob, tool) for glob in self.agent):
            rule, why = names.AGENT_TOOLS, "the agent's own list of tools does not name it"
        elif not all(tool in listed for listed in self.envelopes):
            rule, why = names.ENVELOPE, "the envelope of the run does not name it"
        else:
            return verdict
        before = (verdict.rule, *verdict.hits) if verdict.decision is not Decision.ALLOW else ()
        hits = tuple([hit for hit in before if hit != rule])
        tell = "You may not use this tool"
        return replace(verdict, decision=Decision.DENY, rule=rule, why=why, tell_model=tell, hits=hits)
