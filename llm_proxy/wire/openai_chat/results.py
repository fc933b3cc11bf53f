"""OpenAI chat completions, where a message's tool result stands."""

from __future__ import annotations

from llm_proxy.wire.results import ResultAt, members_at, nothing, result_at, text_at


def results_at(raw: bytes) -> tuple[ResultAt, ...]:
    """The result that a message of role `tool`, or `function` in the legacy form, is."""
    message = members_at(raw)
    key = {"tool": "tool_call_id", "function": "name"}.get(text_at(message, "role"), "")
    if not key:
        return ()
    id_ = text_at(message, key)  # one without is a result all the same, of a call that nobody knows
    return (result_at(raw, id_, message["content"][1]) if "content" in message else nothing(id_),)
