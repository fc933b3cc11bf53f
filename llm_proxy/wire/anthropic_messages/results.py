"""Anthropic Messages, where the tool results of a message stand."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.results import ResultAt, members_at, nothing, result_at, text_at
from llm_proxy.wire.spans import array_spans

_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def results_at(raw: bytes) -> tuple[ResultAt, ...]:
    """The results among a message's blocks, in order; not those of tools that the provider ran."""
    message = members_at(raw)
    content = message.get("content")
    if content is None or not bytes(content[0]).startswith(b"["):
        return ()
    found: list[ResultAt] = []
    for start, end in array_spans(raw, content[1][0], _array(content[0])):
        block = members_at(raw[:end], start)
        if text_at(block, "type") == "tool_result":
            id_ = text_at(block, "tool_use_id")
            found.append(result_at(raw, id_, block["content"][1]) if "content" in block else nothing(id_))
    return tuple(found)
