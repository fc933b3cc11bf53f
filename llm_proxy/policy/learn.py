"""What recorded traffic says of each tool: who called it, the shape of its arguments, how it is declared."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_proxy.policy.actions import unnameable
from llm_proxy.policy.arguments import BadArgs, parse_arguments
from llm_proxy.policy.canonical import Json, canonical
from llm_proxy.policy.declared import Declared
from llm_proxy.policy.shape import Shape

MOST_TOOLS = 500
_MOST_BYTES = 1_048_576
_MOST_DEPTH = 16
_MOST_RUNS = 100_000
_MOST_DECLARED = 65_536
_KEPT = 200
"""Distinct arguments that are kept of each tool, to see whether what was declared fits them."""


@dataclass(slots=True)
class Tool:
    """What was seen of one tool."""

    calls: int = 0
    unreadable: int = 0
    runs: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    agents: set[str] = field(default_factory=set[str])
    shape: Shape = field(default_factory=Shape)
    kept: dict[str, dict[str, Json]] = field(default_factory=dict[str, dict[str, Json]])
    declared: dict[str, Declared] = field(default_factory=dict[str, Declared])


class Learning:
    """Takes tool calls as they were recorded."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        self.calls = 0
        self.left_out = 0
        """Calls of names that no policy can hold, and of tools beyond `MOST_TOOLS`."""

    def declaration_wanted(self, tool: str) -> bool:
        """Whether a few more declarations of it should be looked at."""
        found = self.tools.get(tool)
        return found is None or len(found.declared) < 2

    def called(self, tool: str, arguments: str, agent_id: str, run_id: str) -> None:
        self.calls += 1
        found = self._tool(tool)
        if found is None:
            self.left_out += 1
            return
        found.calls += 1
        found.agents.add(agent_id)
        if len(found.runs) < _MOST_RUNS:
            found.runs.add((agent_id, run_id))
        value = parse_arguments(arguments, max_bytes=_MOST_BYTES, max_depth=_MOST_DEPTH)
        if isinstance(value, BadArgs):
            found.unreadable += 1
            return
        found.shape.add(value)
        if len(found.kept) < _KEPT:
            found.kept.setdefault(canonical(value), value)

    def declared(self, tool: Declared) -> None:
        """Only what was called is in the policy; a declaration alone adds no tool."""
        found = self.tools.get(tool.name)
        if found is not None and len(found.declared) < 8:
            text = canonical(tool.schema)
            if len(text) <= _MOST_DECLARED:
                found.declared.setdefault(text, tool)

    def _tool(self, name: str) -> Tool | None:
        found = self.tools.get(name)
        if found is None and not unnameable(name) and len(self.tools) < MOST_TOOLS:
            found = self.tools[name] = Tool()
        return found
