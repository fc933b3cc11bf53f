"""A proposed call, read: which tool it means, what its arguments say, and its digest."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from llm_proxy.policy.arguments import BadArgs, parse_arguments
from llm_proxy.policy.canonical import Json, digest
from llm_proxy.policy.compiled import Policy, ToolEntry
from llm_proxy.policy.globs import matches
from llm_proxy.policy.schema import Decision, Effect, Match, Requirement
from llm_proxy.policy.verdict import Proposed

MAX_NAME = 256
"""Characters of a tool's name."""


@dataclass(frozen=True, slots=True)
class Action:
    """`refused` says why the arguments have no reading; `arguments` is then empty."""

    tool: ToolEntry
    arguments: dict[str, Json]
    refused: str
    digest: str

    @property
    def is_write(self) -> bool:
        return self.tool.spec.effect is not Effect.READ

    @property
    def is_irreversible(self) -> bool:
        return self.tool.spec.effect is Effect.IRREVERSIBLE

    def fits(self, match: Match | Requirement) -> bool:
        return fits(match, self.tool.name, self.tool.spec.effect)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that spoke about an action."""

    decision: Decision
    rule: str
    why: str
    tell_model: str


def read_action(call: Proposed, policy: Policy) -> Action:
    """Never raises. The digest of refused arguments is of their text, which no object's digest can equal."""
    limits = policy.file.input
    tool = policy.entry(call.name)
    if unnameable(call.name):
        return Action(tool, {}, "the tool's name is no name", digest(call.name, call.arguments))
    value = parse_arguments(call.arguments, max_bytes=limits.max_args_bytes, max_depth=limits.max_depth)
    if isinstance(value, BadArgs):
        return Action(tool, {}, value.why, digest(call.name, call.arguments))
    return Action(tool, value, "", digest(call.name, value))


def unnameable(name: str) -> bool:
    """Whether no tool could be called so: empty, too long, or with control or half characters."""
    if name.isascii():
        return not name.isprintable() or not 0 < len(name) <= MAX_NAME
    return len(name) > MAX_NAME or any(unicodedata.category(char) in ("Cc", "Cs") for char in name)


def fits(match: Match | Requirement, name: str, effect: Effect) -> bool:
    """Whether a call of tool `name` is meant; a requirement for an event means none."""
    if match.tool is None and match.effect is None:
        return False
    return (match.tool is None or matches(match.tool, name)) and match.effect in (None, effect)


def same(actions: Iterable[Action], wanted: str) -> int:
    """How many of the actions have the digest `wanted`."""
    return sum(action.digest == wanted for action in actions)
