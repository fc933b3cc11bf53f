"""The `execute_tool` span of each tool call that a model proposed, told by the call that proposed it.

The proxy sees a tool call twice: when it's judged, and when a later request brings its result, which may be
never. The span is sent with the verdict, so that each proposal has exactly one, denied ones too; the call
whose request brought the result links to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus

from llm_proxy.errors import Kind
from llm_proxy.records.view import CallView, Decision, ProviderUse
from llm_proxy.telemetry.attributes import Attributes, Value, clean, put, put_all
from llm_proxy.telemetry.ids import parent_of, run_trace_id, span_id_of, tool_span_id, trace_id_of
from llm_proxy.telemetry.items import Proposal, RunFacts
from llm_proxy.telemetry.parts import UNREADABLE
from llm_proxy.telemetry.settings import SpanSettings
from llm_proxy.telemetry.trim import fit_arguments, put_fitted
from llm_proxy.telemetry.whose import whose_call

PROVIDER_RAN = "provider"
"""Stands for the choice in the ids of what a provider ran itself."""


class _Definition(msgspec.Struct):
    name: str = ""
    description: str = ""


def tool_spans(
    call: CallView,
    settings: SpanSettings,
    run: RunFacts | None = None,
    definitions: Iterable[msgspec.Raw] = (),
) -> Iterator[Span]:
    """One for each proposed tool call, at the moment at which its call ended, below that call's span.

    `definitions` are the tools as the request declared them.
    """
    proposed = call.decisions or _unjudged(call)
    if not proposed and not call.provider_tools:
        return
    told = _described(definitions) if proposed else {}
    for decision in proposed:
        span = _span(call, run, tool_span_id(call.id, decision.choice, decision.index), decision.tool)
        put(span.attributes, "gen_ai.tool.description", told.get(decision.tool, "")[: settings.content_bytes])
        put_all(span.attributes, judged_tool(decision))
        if put_arguments(span.attributes, decision, settings.content_bytes):
            put(span.attributes, "llm_proxy.content.reference", call.id)
        if not decision.released:
            _refuse(span, decision.why)
        yield span
    for number, use in enumerate(call.provider_tools):
        yield _provider_span(call, run, number, use)


def judged_tool(decision: Decision) -> dict[str, Value]:
    """A proposed tool call and its verdict."""
    judged = bool(decision.decision)
    return {
        "gen_ai.tool.name": decision.tool,
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": decision.tool_call_id,
        "llm_proxy.decision": decision.decision,
        "llm_proxy.rule": decision.rule,
        "llm_proxy.why": decision.why,
        "llm_proxy.effect": decision.effect if judged else "",
        "llm_proxy.hits": decision.hits,
        "llm_proxy.shadow": (judged and decision.shadow) or None,
        "llm_proxy.approval": decision.approval,
        "llm_proxy.digest": decision.digest,
        "llm_proxy.received": decision.received,
        "llm_proxy.policy": decision.policy,
        "llm_proxy.masked": decision.masked or None,
    }


def put_arguments(target: Attributes, decision: Decision, budget: int) -> bool:
    """A tool call's arguments; whether they had to be trimmed."""
    fitted = fit_arguments(decision.arguments, budget)
    return put_fitted(target, {"gen_ai.tool.call.arguments": fitted})


def put_answers(span: Span, answers: Sequence[Proposal], run: RunFacts | None, at_us: int) -> None:
    """A link to the span of each tool call whose result came in with this call, at `at_us`."""
    if run is None:
        return
    for answer in answers:
        caller = parent_of(answer.traceparent)
        link = span.links.add(
            trace_id=caller[0] if caller else run_trace_id(run.top),
            span_id=tool_span_id(answer.call_id, answer.choice, answer.index),
        )
        put_all(
            link.attributes,
            {
                "gen_ai.tool.call.id": answer.tool_call_id,
                "gen_ai.tool.name": answer.tool,
                "llm_proxy.call.id": answer.call_id,
                "llm_proxy.tool.duration_s": max(at_us - answer.at_us, 0) / 1e6,
            },
        )


def _unjudged(call: CallView) -> tuple[Decision, ...]:
    """What the reply proposed where nothing judged it: a decision that says neither yes nor no."""
    choices = call.reply.choices if call.reply is not None else ()
    return tuple(
        Decision(
            choice=tool.choice,
            index=tool.index,
            tool_call_id=tool.id,
            tool=tool.name,
            arguments=tool.arguments,
            decision="",
            shadow=True,
        )
        for choice in choices
        for tool in choice.calls
    )


def _described(definitions: Iterable[msgspec.Raw]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw in definitions:
        try:
            tool = msgspec.json.decode(raw, type=_Definition)
        except UNREADABLE:
            continue
        found[tool.name] = tool.description
    return found


def _span(call: CallView, run: RunFacts | None, id_: bytes, tool: str) -> Span:
    at = call.started_us * 1000 + round((call.total_s or 0.0) * 1e9)
    span = Span(
        trace_id=trace_id_of(call, run),
        span_id=id_,
        parent_span_id=span_id_of(call.id),
        name=clean(f"execute_tool {tool}".strip()),
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=at,
        end_time_unix_nano=at,
    )
    told: dict[str, Value] = {"gen_ai.operation.name": "execute_tool", "gen_ai.provider.name": "llm_proxy"}
    put_all(span.attributes, told | whose_call(call, "TOOL"))
    return span


def _provider_span(call: CallView, run: RunFacts | None, number: int, use: ProviderUse) -> Span:
    span = _span(call, run, tool_span_id(call.id, PROVIDER_RAN, number), use.tool)
    put_all(
        span.attributes,
        {
            "gen_ai.tool.name": use.tool,
            "gen_ai.tool.type": "extension",
            "gen_ai.tool.call.id": use.id,
            "llm_proxy.rule": use.rule,
            "llm_proxy.provider_ran": True,
        },
    )
    if use.rule:
        _refuse(span, f"The provider ran it before it could be stopped ({use.rule}).")
    return span


def _refuse(span: Span, why: str) -> None:
    put(span.attributes, "error.type", Kind.POLICY_DENIED.value)
    span.status.code = SpanStatus.STATUS_CODE_ERROR
    span.status.message = clean(why)
