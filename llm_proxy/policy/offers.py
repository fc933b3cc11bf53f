"""Which declared tools an agent is offered: never one whose every call would be denied, whatever it says.

What the provider runs is judged when it is declared, as if it were called with its declaration, since nothing
can stop it later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_proxy.policy import names
from llm_proxy.policy.actions import unnameable
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.context import Context
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.permitted import Permitted
from llm_proxy.policy.schema import Decision, Effect, Tier
from llm_proxy.policy.verdict import Proposed, Verdict


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a tool is not offered."""

    rule: str
    why: str


@dataclass(frozen=True, slots=True)
class Served:
    """A tool that the provider runs, as it's judged. Of a server, `prefix` begins the names of its tools.

    `free`: those of them that run without being asked for; None = every one.
    """

    name: str
    arguments: str
    prefix: str = ""
    free: tuple[str, ...] | None = ()


@dataclass(frozen=True, slots=True)
class Offers:
    """What one agent, in one place of the tree of runs, may be offered. No policy: whatever is permitted."""

    policy: Policy | None
    role: str
    permitted: Permitted

    def never(self, name: str) -> Reason | None:
        """Why no call of a tool of this name could ever be allowed; None where one could."""
        verdict = self.permitted.judged(_FREE, name)
        if verdict is not _FREE:
            return Reason(verdict.rule, verdict.why)
        return None if self.policy is None else self._forbidden(name, self.policy)

    def family(self, prefix: str) -> Reason | None:
        """The same for a toolset: where no member that is registered could be called, nor any other."""
        policy = self.policy
        if policy is None or policy.file.posture.fallback is not Decision.DENY:
            return None
        members = [self.never(name) for name in policy.tools if name.startswith(prefix)]
        if not members:
            return Reason(names.UNKNOWN_TOOL, f"no tool {prefix}* is registered")
        return members[0] if all(members) else None

    def _forbidden(self, name: str, policy: Policy) -> Reason | None:
        if unnameable(name):
            return Reason(names.BAD_ARGS, "the tool's name is no name")
        entry = policy.entry(name)
        if not entry.registered and policy.file.posture.fallback is Decision.DENY:
            return Reason(names.UNKNOWN_TOOL, "the tool is not registered")
        if entry.spec.tier is Tier.PROHIBITED:
            return Reason(names.PROHIBITED, "the tool is prohibited")
        roles = entry.spec.roles
        if roles is not None and self.role not in roles:
            return Reason(names.ROLE, f"the agent's role is not one of {', '.join(roles)}")
        return None


def served(
    engine: PolicyEngine, tools: Sequence[Served], context: Context, offers: Offers
) -> list[Reason | None]:
    """Why each tool that the provider runs may not be declared now; None where it may.

    They are judged as one set, as if each were called with its declaration. Nobody can be asked before what
    runs elsewhere, so that an ask denies.
    """
    verdicts = engine.decide([Proposed("", tool.name, tool.arguments) for tool in tools], context)
    found = [offers.permitted.judged(v, tool.name) for v, tool in zip(verdicts, tools, strict=True)]
    return [_reason(v) or _of_server(tool, offers) for v, tool in zip(found, tools, strict=True)]


def _reason(verdict: Verdict) -> Reason | None:
    match verdict.decision:
        case Decision.ALLOW:
            return None
        case Decision.ASK:
            why = f"{verdict.rule} asks, and nobody can be asked before what the provider runs"
            return Reason(names.PROVIDER_RUN, why)
        case Decision.DENY:
            return Reason(verdict.rule, verdict.why)


def _of_server(tool: Served, offers: Offers) -> Reason | None:
    """Why a server's tool that has an entry of its own may not run unasked."""
    policy = offers.policy
    if policy is None or not tool.prefix or tool.free == ():
        return None
    for name in policy.tools if tool.free is None else tool.free:
        entry = policy.tools.get(name)
        if entry is None or not name.startswith(tool.prefix):
            continue
        if reason := offers.never(name):
            return replace(reason, why=f"{name}, which it could run unasked: {reason.why}")
        if entry.spec.tier is not Tier.AUTONOMOUS or entry.checks:
            why = f"it could run {name} unasked, which has to be judged call by call"
            return Reason(names.PROVIDER_RUN, why)
    return None


_FREE = Verdict(Decision.ALLOW, "", "", "", Effect.READ, (), "")
