"""The span that one call becomes. The other spans stand in `tool_span.py` and `run_span.py`.

Pure: the same item and settings give the same spans, ids included, so that sending them again is harmless.
Source: https://github.com/open-telemetry/semantic-conventions-genai, and OpenInference for Phoenix.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus

from llm_proxy.errors import Kind
from llm_proxy.policy import names
from llm_proxy.records.view import Attempt, CallView, Decision, Status
from llm_proxy.telemetry.attributes import Attributes, Value, clean, put, put_all
from llm_proxy.telemetry.chat_request import RequestContent, Sampling, chat_request
from llm_proxy.telemetry.ids import parent_of, run_span_id, run_trace_id, span_id_of, trace_id_of
from llm_proxy.telemetry.items import Proposal, RunFacts
from llm_proxy.telemetry.parts import finish_reason, reply_messages
from llm_proxy.telemetry.prompt_request import prompt_request
from llm_proxy.telemetry.providers import provider_name
from llm_proxy.telemetry.settings import SpanSettings
from llm_proxy.telemetry.tool_span import judged_tool, put_answers, put_arguments
from llm_proxy.telemetry.trim import Fitted, fit_items, fit_messages, fit_parts, put_fitted
from llm_proxy.telemetry.whose import whose_call
from llm_proxy.wire.dialects import DIALECTS

MAX_EVENTS = 128
"""OpenTelemetry's default limit on events per span; the rest is counted in `dropped_events_count`."""

ACTION = "execute_tool"
"""The operation of a call by which an agent asked for a verdict: its own span is that of the tool call."""

_REMOTE_PARENT = 0x300


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A decision as `llm_proxy.decisions` tells it; its arguments are in the output message's tool call."""

    tool_call_id: str
    tool: str
    decision: str
    rule: str = ""
    why: str = ""
    effect: str = ""
    hits: tuple[str, ...] = ()
    shadow: bool = False


def call_span(
    call: CallView,
    settings: SpanSettings,
    content: RequestContent | None,
    run: RunFacts | None = None,
    answers: Sequence[Proposal] = (),
) -> Span:
    """The terminal span of a call that has ended, below its caller's span or that of its run.

    `content` is that of its request, as `content_of` reads it.
    """
    start = call.started_us * 1000
    span = Span(
        trace_id=trace_id_of(call, run),
        span_id=span_id_of(call.id),
        name=f"{call.operation} {call.model}".strip(),
        kind=Span.SPAN_KIND_INTERNAL if call.operation == ACTION else Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=start,
        end_time_unix_nano=start + round((call.total_s or 0.0) * 1e9),
    )
    _put_place(span, call, run)
    put_answers(span, answers, run, call.started_us)
    put_all(span.attributes, _conventions(call))
    put_all(span.attributes, _backend_hints(call))
    own = _own(call)
    if call.operation == ACTION and call.decisions:
        own = judged_tool(call.decisions[0]) | own
        put_arguments(span.attributes, call.decisions[0], settings.content_bytes)
    put_all(span.attributes, own)
    if content is not None:
        put_all(span.attributes, _sampling(content.sampling))
    _put_content(span.attributes, call, content, settings.content_bytes)
    _put_events(span, call)
    _put_status(span, call)
    return span


def _put_place(span: Span, call: CallView, run: RunFacts | None) -> None:
    """Its parent: the caller's span where a `traceparent` names it, and then its run's is linked."""
    parent = parent_of(call.traceparent)
    if parent is None:
        if run is not None:
            span.parent_span_id = run_span_id(run.ref)
        return
    span.parent_span_id = parent[1]
    span.flags = parent[2] | _REMOTE_PARENT
    if run is not None:
        span.links.add(trace_id=run_trace_id(run.top), span_id=run_span_id(run.ref))


def content_of(call: CallView) -> RequestContent | None:
    """The request in message parts; None where there is none, or it's kept no more."""
    if not call.request:
        return None
    if call.dialect == "openai_chat":
        return chat_request(call.request)
    return prompt_request(DIALECTS[call.dialect], call.request)


def _conventions(call: CallView) -> dict[str, Value]:
    usage = call.usage
    host, port = _address(call.server_address)
    reply = call.reply
    return {
        "gen_ai.operation.name": call.operation,
        "gen_ai.provider.name": provider_name(call.provider),
        "gen_ai.request.model": call.model,
        "gen_ai.request.stream": call.stream or None,
        "gen_ai.response.id": reply.id if reply else None,
        "gen_ai.response.model": (reply.model if reply else "") or call.served_model,
        "gen_ai.response.finish_reasons": _finish_reasons(call),
        "gen_ai.response.time_to_first_chunk": call.first_event_s if call.stream else None,
        "gen_ai.usage.input_tokens": usage.input if usage else None,
        "gen_ai.usage.output_tokens": usage.output if usage else None,
        "gen_ai.usage.cache_read.input_tokens": usage.cached if usage else None,
        "gen_ai.usage.cache_write.input_tokens": usage.cache_write if usage else None,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write if usage else None,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning if usage else None,
        "server.address": host,
        "server.port": port,
        "error.type": _error_type(call),
    }


def _sampling(asked: Sampling) -> dict[str, Value]:
    return {
        "gen_ai.request.max_tokens": asked.max_tokens,
        "gen_ai.request.temperature": asked.temperature,
        "gen_ai.request.top_p": asked.top_p,
        "gen_ai.request.frequency_penalty": asked.frequency_penalty,
        "gen_ai.request.presence_penalty": asked.presence_penalty,
        "gen_ai.request.top_k": float(asked.top_k) if asked.top_k is not None else None,
        "gen_ai.request.seed": asked.seed,
        "gen_ai.request.stop_sequences": asked.stop,
        "gen_ai.request.choice.count": asked.choices if asked.choices != 1 else None,
        "gen_ai.request.reasoning.level": asked.reasoning_level,
        "gen_ai.request.previous_response.id": asked.previous_response,
        "gen_ai.conversation.id": asked.conversation,
        "gen_ai.output.type": asked.output_type,
    }


def _backend_hints(call: CallView) -> dict[str, Value]:
    """Whose it is, and what Phoenix, Langfuse and SigNoz read beside the conventions."""
    kinds = {"embeddings": "EMBEDDING", ACTION: "TOOL"}
    return whose_call(call, kinds.get(call.operation, "LLM")) | {
        # What Phoenix looks prices up by: the alias that was asked for has none.
        "llm.model_name": call.served_model if call.operation not in kinds else None,
        "llm.cost.total": call.cost_micro_usd / 1_000_000 if call.operation != ACTION else None,
        "llm.token_count.completion_details.reasoning": call.usage.reasoning if call.usage else None,
        "gen_ai.server.ttft": call.first_event_s if call.stream else None,
    }


def _own(call: CallView) -> dict[str, Value]:
    verdict, rule = _overall(call)
    held: dict[str, Value] = {f"llm_proxy.held.{unit}": amount for unit, amount in call.held.items()}
    return {
        "llm_proxy.run.inferred": call.run_inferred or None,
        "llm_proxy.key.id": call.key_id,
        "llm_proxy.user.verified": call.user_verified or None,
        "llm_proxy.actors": call.actors,
        "llm_proxy.tags": call.tags,
        "llm_proxy.dialect": call.dialect,
        "llm_proxy.upstream_dialect": call.upstream_dialect,
        "llm_proxy.dropped_fields": call.dropped,
        "llm_proxy.reasoning.withheld": call.reasoning_withheld or None,
        "llm_proxy.masked": call.masked or None,
        "llm_proxy.status": call.status.value,
        "llm_proxy.target": call.target,
        "llm_proxy.attempts": len(call.attempts),
        "llm_proxy.replans": len(call.rounds) or None,
        "llm_proxy.decision": verdict,
        "llm_proxy.rule": rule,
        "llm_proxy.policy": call.policy,
        "llm_proxy.cost_usd": call.cost_micro_usd / 1_000_000,
        "llm_proxy.cost_micro_usd": call.cost_micro_usd,
        "llm_proxy.cost_label": call.cost_label.value if call.cost_label else None,
        "llm_proxy.overhead_ms": call.overhead_ms,
        "llm_proxy.error.status": call.problem.status or None if call.problem else None,
        **held,
    }


def _overall(call: CallView) -> tuple[str, str]:
    """The verdict that decided: the first denial in force, else the first verdict."""
    if call.problem and call.problem.kind == Kind.POLICY_DENIED and not call.decisions:
        return "deny", ""
    denials = [d for d in call.decisions if d.decision == "deny" and not d.shadow]
    denied = next((d for d in denials if d.rule != names.SIBLING_DENIED), None)
    first = denied or next(iter(call.decisions), None)
    return (first.decision, first.rule) if first else ("", "")


def _put_content(target: Attributes, call: CallView, content: RequestContent | None, budget: int) -> None:
    """Each content attribute, and for each that had to be trimmed what it was: hash, length, items kept."""
    fitted: dict[str, Fitted] = {}
    if content and content.messages:
        fitted["gen_ai.input.messages"] = fit_messages(content.messages, budget)
    if content and content.system:
        fitted["gen_ai.system_instructions"] = fit_parts(content.system, budget)
    if content and content.tools:
        fitted["gen_ai.tool.definitions"] = fit_items(content.tools, budget)
    if call.reply and call.reply.choices:
        fitted["gen_ai.output.messages"] = fit_messages(reply_messages(call.reply), budget)
    if call.decisions:
        fitted["llm_proxy.decisions"] = fit_items(map(_verdict, call.decisions), budget)
    if call.results:
        fitted["llm_proxy.tool_results"] = fit_items(call.results, budget)
    if call.withheld:
        fitted["llm_proxy.withheld"] = fit_items(call.withheld, budget)
    if call.provider_tools:
        fitted["llm_proxy.provider_tools"] = fit_items(call.provider_tools, budget)
    if put_fitted(target, fitted):
        put(target, "llm_proxy.content.reference", call.id)


def _verdict(decision: Decision) -> Verdict:
    return Verdict(
        tool_call_id=decision.tool_call_id,
        tool=decision.tool,
        decision=decision.decision,
        rule=decision.rule,
        why=decision.why,
        effect=decision.effect,
        hits=decision.hits,
        shadow=decision.shadow,
    )


def _put_events(span: Span, call: CallView) -> None:
    start = span.start_time_unix_nano
    tries = sorted(call.attempts, key=lambda attempt: attempt.started_s)
    told = [_attempt_event(attempt, number, start) for number, attempt in enumerate(tries, 1)]
    told += [_verdict_event(d, span.end_time_unix_nano) for d in call.decisions]
    span.events.extend(told[:MAX_EVENTS])
    span.dropped_events_count = max(len(told) - MAX_EVENTS, 0)


def _attempt_event(attempt: Attempt, number: int, start: int) -> Span.Event:
    """At the time when it began; `number` counts the call's tries from 1, in that order."""
    event = Span.Event(name="llm_proxy.attempt", time_unix_nano=start + round(attempt.started_s * 1e9))
    put_all(
        event.attributes,
        {
            "llm_proxy.target": attempt.target,
            "gen_ai.provider.name": provider_name(attempt.provider),
            "gen_ai.request.model": attempt.model,
            "llm_proxy.attempt.number": number,
            "llm_proxy.attempt.api_key": attempt.api_key or None,
            "llm_proxy.attempt.resumed": attempt.resumed or None,
            "llm_proxy.attempt.replan": attempt.replan or None,
            "llm_proxy.attempt.duration_s": attempt.ended_s - attempt.started_s,
            "llm_proxy.attempt.first_event_s": attempt.first_event_s,
            "http.response.status_code": attempt.status,
            "error.type": attempt.failure,
            "llm_proxy.attempt.detail": attempt.detail,
        },
    )
    return event


def _verdict_event(verdict: Decision, at: int) -> Span.Event:
    event = Span.Event(name="llm_proxy.decision", time_unix_nano=at)
    put_all(
        event.attributes,
        {
            "gen_ai.tool.call.id": verdict.tool_call_id,
            "gen_ai.tool.name": verdict.tool,
            "llm_proxy.decision": verdict.decision,
            "llm_proxy.rule": verdict.rule,
            "llm_proxy.why": verdict.why,
            "llm_proxy.effect": verdict.effect,
            "llm_proxy.hits": verdict.hits,
            "llm_proxy.shadow": verdict.shadow or None,
            "llm_proxy.approval": verdict.approval,
        },
    )
    return event


def _put_status(span: Span, call: CallView) -> None:
    if _error_type(call):
        span.status.code = SpanStatus.STATUS_CODE_ERROR
        span.status.message = clean(call.problem.message if call.problem else call.status.value)


def _error_type(call: CallView) -> str:
    match call.status:
        case Status.OPEN | Status.OK | Status.CLIENT_GONE:
            return ""
        case Status.REFUSED | Status.FAILED | Status.CUT | Status.INTERRUPTED:
            return call.problem.kind if call.problem else call.status.value


def _finish_reasons(call: CallView) -> list[str]:
    reasons = [finish_reason(r) for r in call.finish_reasons]
    if not reasons and call.reply:
        reasons = [finish_reason(c.finish) for c in call.reply.choices]
    return reasons


def _address(server: str) -> tuple[str, int | None]:
    """Host and port of `host`, `host:port` or a URL."""
    try:
        parts = urlsplit(server if "//" in server else f"//{server}")
        return parts.hostname or "", parts.port
    except ValueError:
        return server, None
