"""The `invoke_agent` span of a run, and the spans of what befell it apart from its calls.

A run's span is sent once, with what began it: its first call, or its opening by `POST /v1/runs`. A run may
never end, so the span has no length, and its end is a span of its own below it.
"""

from __future__ import annotations

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llm_proxy.telemetry.attributes import Value, clean, put_all
from llm_proxy.telemetry.ids import run_span_id, run_trace_id, span_id_of
from llm_proxy.telemetry.items import Befallen, RunFacts
from llm_proxy.telemetry.whose import whose


def run_span(run: RunFacts) -> Span:
    """The root of a run, or the child of the run above it. It follows from the run alone."""
    span = _span(run, run_span_id(run.ref), f"invoke_agent {run.ref.agent_id}", run.started_us, "AGENT")
    if run.parent is not None:
        span.parent_span_id = run_span_id(run.parent)
    put_all(
        span.attributes,
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": "llm_proxy",
            "llm_proxy.run.inferred": run.inferred or None,
            "llm_proxy.run.purpose": run.purpose,
            "llm_proxy.run.trigger": run.trigger,
        },
    )
    return span


def befallen_span(run: RunFacts, what: Befallen, place: str) -> Span:
    """`place` is where its record stands; what that says is in `llm_proxy.run.effect.url` and so on."""
    span = _span(run, span_id_of(place), what.kind, what.at_us, "CHAIN")
    span.parent_span_id = run_span_id(run.ref)
    told: dict[str, Value] = {f"llm_proxy.{what.kind}.{key}": value for key, value in what.told.items()}
    put_all(span.attributes, told)
    return span


def _span(run: RunFacts, id_: bytes, name: str, at_us: int, kind: str) -> Span:
    span = Span(
        trace_id=run_trace_id(run.top),
        span_id=id_,
        name=clean(name),
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=at_us * 1000,
        end_time_unix_nano=at_us * 1000,
    )
    told = whose(
        run=run.ref.run_id,
        agent=run.ref.agent_id,
        parent_run=run.parent_run_id,
        team=run.team,
        role=run.role,
        user=run.user_id,
        kind=kind,
    )
    put_all(span.attributes, told)
    return span
