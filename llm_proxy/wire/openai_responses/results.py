"""OpenAI Responses, where an item's tool result stands."""

from __future__ import annotations

from llm_proxy.wire.results import ResultAt, members_at, nothing, result_at, text_at


def results_at(raw: bytes) -> tuple[ResultAt, ...]:
    """The result that an item is whose type ends in `_output`, or the answer that it is to an MCP request."""
    item = members_at(raw)
    type_ = text_at(item, "type")
    if type_ == "mcp_approval_response":
        id_, key = text_at(item, "approval_request_id"), "reason"
    elif type_.endswith("_output"):
        id_ = text_at(item, "call_id") or text_at(item, "id")
        key = "output" if text_at(item, "output") or "tools" not in item else "tools"
    else:
        return ()
    return (result_at(raw, id_, item[key][1]) if key in item else nothing(id_),)
