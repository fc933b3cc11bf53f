"""Trace and span ids that follow from the ids of what they tell, so that a span sent twice is one span.

Source of the parent: https://www.w3.org/TR/trace-context/#traceparent-header.
"""

from __future__ import annotations

import hashlib
import re

from llm_proxy.records.view import CallView
from llm_proxy.telemetry.items import RunFacts, RunRef

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


def span_id_of(call_id: str) -> bytes:
    return hashlib.sha256(call_id.encode()).digest()[:8]


def tool_span_id(call_id: str, choice: int | str, index: int) -> bytes:
    """Of the `index`th tool call of a choice: tool call ids are unique within a reply at most."""
    return span_id_of(f"execute_tool:{call_id}:{choice}:{index}")


def run_span_id(run: RunRef) -> bytes:
    return span_id_of(f"invoke_agent:{run.agent_id}\n{run.run_id}")


def run_trace_id(run: RunRef) -> bytes:
    return hashlib.sha256(f"run:{run.agent_id}\n{run.run_id}".encode()).digest()[:16]


def trace_id_of(call: CallView, run: RunFacts | None = None) -> bytes:
    """The caller's trace, else that of the topmost run above the call's, else one per run, or per call."""
    if parent := parent_of(call.traceparent):
        return parent[0]
    if run is not None:
        return run_trace_id(run.top)
    if call.run_id:
        return run_trace_id(RunRef(call.agent_id, call.run_id))
    return hashlib.sha256(f"call:{call.id}".encode()).digest()[:16]


def parent_of(traceparent: str) -> tuple[bytes, bytes, int] | None:
    """Trace id, span id and flags of a valid W3C traceparent."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None:
        return None
    trace, span, flags = bytes.fromhex(found[1]), bytes.fromhex(found[2]), int(found[3], 16)
    return (trace, span, flags) if any(trace) and any(span) else None
