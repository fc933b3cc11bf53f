"""Trace and span ids that follow from a call's own ids, so that a span sent twice is one span.

Source of the parent: https://www.w3.org/TR/trace-context/#traceparent-header.
"""

from __future__ import annotations

import hashlib
import re

from llm_proxy.records.view import CallView

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


def span_id_of(call_id: str) -> bytes:
    return hashlib.sha256(call_id.encode()).digest()[:8]


def trace_id_of(call: CallView) -> bytes:
    """The caller's trace, else one per run, else one per call."""
    if parent := parent_of(call.traceparent):
        return parent[0]
    seed = f"run:{call.agent_id}\n{call.run_id}" if call.run_id else f"call:{call.id}"
    return hashlib.sha256(seed.encode()).digest()[:16]


def parent_of(traceparent: str) -> tuple[bytes, bytes, int] | None:
    """Trace id, span id and flags of a valid W3C traceparent."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None:
        return None
    trace, span, flags = bytes.fromhex(found[1]), bytes.fromhex(found[2]), int(found[3], 16)
    return (trace, span, flags) if any(trace) and any(span) else None
