"""The tools that a request declares, as far as a policy can learn from them: names, words and schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from llm_proxy.policy.canonical import Json


class Declared(NamedTuple):
    """A tool as a request declares it: `schema` is the JSON Schema of its arguments."""

    name: str
    description: str
    schema: dict[str, Json] | None


def declarations(value: Json) -> Iterator[Declared]:
    """The tools that a request's `tools` or `functions` declare, in any dialect's way."""
    for item in value if isinstance(value, list) else ():
        if isinstance(item, Mapping):
            yield from _declared(item)


def _declared(item: Mapping[str, Json], namespace: str = "") -> Iterator[Declared]:
    inner = item.get("function")
    tool = inner if isinstance(inner, Mapping) else item
    nested = item.get("tools")
    name = tool.get("name")
    if item.get("type") == "namespace" and isinstance(nested, list) and isinstance(name, str):
        for one in nested:
            if isinstance(one, Mapping):
                yield from _declared(one, name)
        return
    schema = tool.get("parameters") or tool.get("input_schema")
    if isinstance(name, str) and isinstance(schema, dict):
        told = tool.get("description")
        full = f"{namespace}__{name}" if namespace else name
        yield Declared(full, told if isinstance(told, str) else "", schema)
