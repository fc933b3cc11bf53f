"""Whatever else OpenAI-compatible servers offer below `/v1`: carried as it is, known by what it costs."""

from __future__ import annotations

from llm_proxy.wire import untooled
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.openai_chat import errors
from llm_proxy.wire.passthrough import reply, request
from llm_proxy.wire.passthrough.paths import checked_path, is_administrative, is_model_path, returns_calls
from llm_proxy.wire.passthrough.request import PassthroughRequest, parse_request
from llm_proxy.wire.passthrough.units import Units, billed, units

__all__ = [
    "PASSTHROUGH",
    "PassthroughRequest",
    "Units",
    "billed",
    "checked_path",
    "is_administrative",
    "is_model_path",
    "parse_request",
    "returns_calls",
    "units",
]

PASSTHROUGH = Dialect(
    name="passthrough",
    path="",
    upstream_path="",
    operation="passthrough",
    priced=False,
    raw=True,
    declared=frozenset({"input", "instructions", "prompt", "query", "documents"}),
    parse=request.parse,
    message_facts=request.message_facts,
    upstream_edits=request.upstream_edits,
    read_body=reply.read_body,
    read_frame=reply.read_frame,
    edit_body=untooled.edit_body,
    edit_frames=untooled.edit_frames,
    error_body=errors.error_body,
    error_frame=errors.error_frame,
    signed=untooled.signed,
    passes=frozenset({b"openai-beta", b"anthropic-beta", b"anthropic-version"}),
)
