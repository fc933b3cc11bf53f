"""Spans of calls, as their tests read them."""

from __future__ import annotations

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llm_proxy.records.view import CallView
from llm_proxy.telemetry.items import Item
from llm_proxy.telemetry.settings import SpanSettings
from llm_proxy.telemetry.spans import spans_of

SETTINGS = SpanSettings(service_version="0.1.0")
CONTENT = (
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
)


def span_of(call: CallView, content_bytes: int = SETTINGS.content_bytes) -> Span:
    """The call's own: no run of it is known, and those of its tool calls come behind."""
    return spans_of(Item(call=call), SpanSettings(content_bytes=content_bytes))[0]
