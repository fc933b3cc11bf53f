"""Which approval an ask goes by, and what of the registry a grant is bound to."""

from __future__ import annotations

import hashlib
from collections.abc import Container

from llm_proxy.policy.canonical import canonical
from llm_proxy.policy.compiled import Policy, ToolEntry
from llm_proxy.policy.schema import Approval

DEFAULT = "default"


def approval_for(policy: Policy, tool: str, answerable: Container[str]) -> tuple[str, Approval] | None:
    """The entry of `approvals` for a tool, by its name; None where nobody may approve by it."""
    name = policy.entry(tool).spec.approval or DEFAULT
    entry = policy.file.approvals.get(name)
    return None if entry is None or name not in answerable else (name, entry)


def schema_hash(tool: ToolEntry) -> str:
    """SHA-256 (hex) of the tool's entry in canonical JSON: a grant ends with any change of it."""
    spec = tool.spec.model_dump(mode="json")
    return hashlib.sha256(canonical([tool.name, spec]).encode("utf-8", "surrogatepass")).hexdigest()
