"""The tools that the policy in force knows: its registry, a line each."""

from __future__ import annotations

import msgspec

from llm_proxy.policy.compiled import Policy


class ToolLine(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as the policy's file has it. Empty is what the file leaves out."""

    tool: str
    tier: str
    effect: str
    risk: str
    sink: str
    clearance: str
    """The highest sensitivity that may flow into it."""
    roles: tuple[str, ...]
    """Of agents that may use it; empty for any."""
    owner: str
    approval: str
    schema: bool
    """Its arguments are checked by one."""
    destinations: dict[str, str]
    """By argument: the destinations that it's held to."""


def tool_lines(policy: Policy) -> tuple[ToolLine, ...]:
    """In the file's order."""
    return tuple(
        ToolLine(
            tool=name,
            tier=tool.tier.value if tool.tier else "",
            effect=tool.effect.value,
            risk=tool.risk,
            sink=tool.sink.value,
            clearance=str(tool.clearance or ""),
            roles=tool.roles or (),
            owner=tool.owner,
            approval=tool.approval or "",
            schema=tool.args is not None,
            destinations=tool.check,
        )
        for name, tool in policy.file.tools.items()
    )
