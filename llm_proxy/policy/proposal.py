"""The policy that is proposed from what was seen, as a file for people: YAML, and a comment for each tool."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Iterator
from typing import Any, cast

import yaml

from llm_proxy.policy import names
from llm_proxy.policy.args_schema import SchemaProblem, compile_schema
from llm_proxy.policy.canonical import Json
from llm_proxy.policy.learn import Learning, Tool
from llm_proxy.policy.shape import fitting
from llm_proxy.policy.vocabulary import Tier

_MOST_DESCRIPTION = 300
_WIDTH = 100

_HEADER = (
    "# Every tool waits for a person, and counts as a write: what a tool does can't be seen from its calls.",
    "# Go through the tools: set `effect` and `result`, give safe reads `tier: autonomous`, limit what",
    "# is sent out (`sink`, `clearance`, `check`), and tighten `args`. Then write rules, and tests.",
    "policy: {id: learned, version: 1, mode: enforce}",
    "posture: {default: ask, fallback: deny}",
    "approvals:",
    "  # Who may approve: ids of operators of proxy.yaml, or groups of them.",
    '  default: {approvers: ["group:approvers"], quorum: 1, expires_s: 900, hold_s: 20}',
)
_UNKNOWN: dict[str, Json] = {
    "name": "a tool that nobody registered",
    "call": {"tool": "llm-proxy.unregistered"},
    "expect": {"decision": "deny", "rule": names.UNKNOWN_TOOL},
}


def proposal(learned: Learning, source: str) -> str:
    """The policy file. `source` says in a comment where it comes from. No value of an argument is in it."""
    lines = [*_comment(f"Proposed by llm-proxy from {source}."), *_HEADER]
    lines.append("tools:" if learned.tools else "tools: {}")
    cases: list[Json] = []
    for name, tool in sorted(learned.tools.items()):
        args, notes = _arguments(tool)
        lines += [f"  {line}" for line in (*_notes(tool), *notes)]
        spec: dict[str, Json] = {"effect": "write", "tier": Tier.HUMAN_APPROVAL.value}
        lines += _indented({name: spec | {"args": args}}, 2)
        case = _case(name, args)
        if case is not None:
            cases.append(case)
    cases.append(_UNKNOWN)
    lines += ["tests:", *_indented(cases, 2)]
    return "\n".join(lines) + "\n"


def _notes(tool: Tool) -> Iterator[str]:
    agents = sorted(tool.agents)
    by = f"{', '.join(agents[:3])}{f' and {len(agents) - 3} more' if len(agents) > 3 else ''}"
    told = f"{_count(tool.calls, 'call')} in {_count(len(tool.runs), 'run')}, by {by}."
    if tool.unreadable:
        told += f" Of {tool.unreadable} of them the arguments can't be read."
    yield from _comment(told)
    if keys := tool.shape.told():
        yield from _comment(f"Arguments seen: {', '.join(keys)}.")
    declared = next(reversed(tool.declared.values()), None)
    if declared is not None and declared.description:
        yield from _comment(f"Declared as: {declared.description[:_MOST_DESCRIPTION]}")


def _arguments(tool: Tool) -> tuple[dict[str, Json], list[str]]:
    """The schema, and what is to be said of it: as declared where that fits what was seen."""
    seen = tool.shape.schema() or {"type": "object"}
    declared = next(reversed(tool.declared.values()), None)
    if declared is None or not declared.schema:
        return seen, []
    notes: list[str] = []
    if len(tool.declared) > 1:
        notes += _comment("It was declared in several ways; this is one of them.")
    schema = _closed(declared.schema)
    try:
        compiled = compile_schema(schema)
    except SchemaProblem:
        return seen, [*notes, "# What was declared can't be used as it is: args are what was seen."]
    if any(compiled.complaint(value) for value in tool.kept.values()):
        return seen, [*notes, "# Calls were seen that don't fit what was declared: args are what was seen."]
    return schema, notes


def _closed(schema: dict[str, Json]) -> dict[str, Json]:
    """The declared schema for an object without other keys, less words that are for the model."""
    made = copy.deepcopy(schema)
    _strip(made, named=False)
    made["type"] = "object"
    if "properties" in made and "patternProperties" not in made:
        made.setdefault("additionalProperties", False)
    return made


def _strip(value: Json, *, named: bool) -> None:
    """Takes titles, descriptions, defaults and examples out; `named`: the keys are names, not keywords."""
    if isinstance(value, list):
        for item in value:
            _strip(item, named=False)
    if not isinstance(value, dict):
        return
    if not named:
        for word in ("title", "description", "default", "examples", "example", "$schema", "$id"):
            value.pop(word, None)
    for key, inner in value.items():
        if named or key not in ("enum", "const", "required"):
            _strip(
                inner, named=not named and key in ("properties", "patternProperties", "$defs", "definitions")
            )


def _case(name: str, args: dict[str, Json]) -> Json:
    """A test that the tool asks, with made-up arguments; none where they can't be made up."""
    made = fitting(args)
    if not isinstance(made, dict) or compile_schema(args).complaint(made):
        return None
    expect: dict[str, Json] = {"decision": "ask", "rule": names.tier(Tier.HUMAN_APPROVAL)}
    return {"name": f"{name} waits for a person", "call": {"tool": name, "args": made}, "expect": expect}


def _indented(value: object, by: int) -> list[str]:
    return textwrap.indent(_yaml(value), " " * by).splitlines()


class _Quoting(yaml.SafeDumper):
    """Quotes every text that isn't plainly a word, so that no reader takes it for something else."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = text.replace("_", "").replace("-", "").isalpha() and text.isascii() and text.lower() not in _WORDS
    return cast("Any", dumper).represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_Quoting.add_representer(str, cast("Any", _text))


def _yaml(value: object) -> str:
    return yaml.dump(value, Dumper=_Quoting, sort_keys=False, width=_WIDTH, allow_unicode=False)


def _comment(text: str) -> list[str]:
    """As lines that nothing in the text can end."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return textwrap.wrap(plain, _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
