"""What events tell of an approval: how to look at it, and of the arguments only what may leave."""

from __future__ import annotations

from collections.abc import Mapping

from llm_proxy.config.choices import Event

APPROVALS = frozenset({Event.APPROVAL_REQUESTED, Event.APPROVAL_DECIDED})
MOST_ARGUMENTS = 4_096
"""Bytes of the arguments that an event holds; people see all of them where they decide."""


def told(data: Mapping[str, object], *, content: bool) -> dict[str, object]:
    """`data` of an event as one webhook gets it: the arguments, cut, only where `content` is wanted."""
    found = dict(data) | {"command": f"llm-proxy approvals show {data.get('id', '')}"}
    arguments = found.pop("arguments", None)
    if content and isinstance(arguments, str):
        kept = arguments.encode("utf-8", "replace")[:MOST_ARGUMENTS].decode("utf-8", "ignore")
        found |= {"arguments": kept, "arguments_cut": kept != arguments}
    return found
