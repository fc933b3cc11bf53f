"""What events tell of an approval: how to look at it, and of the arguments only what may leave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llm_proxy.config.choices import Event
from llm_proxy.records.policy_rows import ApprovalRow

APPROVALS = frozenset({Event.APPROVAL_REQUESTED, Event.APPROVAL_DECIDED})
MOST_ARGUMENTS = 4_096
"""Bytes of the arguments that an event holds; people see all of them where they decide."""


_INTERNAL = frozenset({"arguments_at", "place"})


def asked(data: Mapping[str, object], opened: Iterable[ApprovalRow]) -> dict[str, object]:
    """What the record of an approval doesn't hold: its arguments."""
    row = next((row for row in opened if row.id == data.get("id")), None)
    return {} if row is None else {"arguments": row.arguments}


def told(data: Mapping[str, object], *, content: bool) -> dict[str, object]:
    """`data` of an event as one webhook gets it: the arguments, cut, only where `content` is wanted."""
    found = {k: v for k, v in data.items() if k not in _INTERNAL}
    found |= {"command": f"llm-proxy approvals show {data.get('id', '')}"}
    arguments = found.pop("arguments", None)
    if content and isinstance(arguments, str):
        kept = arguments.encode("utf-8", "replace")[:MOST_ARGUMENTS].decode("utf-8", "ignore")
        found |= {"arguments": kept, "arguments_cut": kept != arguments}
    return found
