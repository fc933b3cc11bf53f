"""Every span that one item becomes."""

from __future__ import annotations

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llm_proxy.telemetry.items import Item
from llm_proxy.telemetry.run_span import befallen_span, run_span
from llm_proxy.telemetry.settings import SpanSettings
from llm_proxy.telemetry.span import ACTION, call_span, content_of
from llm_proxy.telemetry.tool_span import tool_spans


def spans_of(item: Item, settings: SpanSettings) -> list[Span]:
    """A parent before its children; the ids depend on the item alone, not on the settings."""
    call, run = item.call, item.run
    spans = [run_span(run)] if run is not None and item.begins else []
    if run is not None and item.befallen is not None:
        spans.append(befallen_span(run, item.befallen, item.place))
    if call is not None:
        content = content_of(call)
        spans.append(call_span(call, settings, content, run, item.answers))
        if call.operation != ACTION:
            spans.extend(tool_spans(call, settings, run, content.tools if content else ()))
    return spans
