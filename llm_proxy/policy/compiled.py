"""A policy ready to judge: the file's models with everything that can be compiled once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llm_proxy.policy.args_schema import ArgsSchema
from llm_proxy.policy.conditions import Condition, Conditions, Facts
from llm_proxy.policy.destinations import Check
from llm_proxy.policy.schema import Effect, PolicyFile, Rule, Sink, Tool
from llm_proxy.yamlpos import Issue

_WORST = Tool(effect=Effect.IRREVERSIBLE, sink=Sink.EXTERNAL, risk="high")


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """A registered tool. `facts` are its `tool.…` variables for conditions."""

    name: str
    spec: Tool
    schema: ArgsSchema | None
    checks: tuple[tuple[str, Check], ...]
    facts: Facts
    registered: bool = True


@dataclass(frozen=True, slots=True)
class RuleEntry:
    rule: Rule
    condition: Condition


@dataclass(frozen=True, slots=True)
class Policy:
    """One loaded policy file; `sha256` (hex, of the file's bytes) is its version in every record."""

    file: PolicyFile
    sha256: str
    warnings: tuple[Issue, ...]
    tools: Mapping[str, ToolEntry]
    rules: tuple[RuleEntry, ...]
    conditions: Conditions
    reads_identity: bool
    """Whether any rule looks at `call.identity_from_user`."""
    unknown_sensitivity: int
    """The highest rank that any registered tool's result has."""

    def entry(self, name: str) -> ToolEntry:
        """The tool of exactly this name; for one that isn't registered, an entry that assumes the worst."""
        known = self.tools.get(name)
        if known is not None:
            return known
        facts = tool_facts(name, _WORST, self.file, registered=False)
        return ToolEntry(name, _WORST, None, (), facts, registered=False)


def tool_facts(name: str, spec: Tool, file: PolicyFile, *, registered: bool = True) -> Facts:
    """The `tool.…` variables of one tool. Its labels must be the file's own."""
    return {
        "tool.name": name,
        "tool.registered": registered,
        "tool.owner": spec.owner,
        "tool.risk": spec.risk,
        "tool.effect": str(spec.effect),
        "tool.sink": str(spec.sink),
        "tool.clearance": file.rank(spec.clearance),
        "tool.tier": str(spec.tier or ""),
        "tool.roles": list(spec.roles or ()),
        "tool.sensitivity": file.rank(spec.result.sensitivity),
        "tool.trust": str(spec.result.trust),
        "tool.identity_args": list(spec.identity_args),
        "tool.approval": spec.approval or "",
    }
