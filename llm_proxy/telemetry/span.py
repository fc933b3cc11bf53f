"""The span that one call becomes. The only place that knows gen_ai.* attribute names.

Pure: the same call and settings give the same span, ids included, so that sending it again is harmless.
Source: https://github.com/open-telemetry/semantic-conventions-genai, and OpenInference for Phoenix.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus

from llm_proxy.errors import Kind
from llm_proxy.policy import names
from llm_proxy.records.view import Attempt, CallView, Decision, Status
from llm_proxy.telemetry.attributes import Attributes, Value, clean, put, put_all
from llm_proxy.telemetry.chat_request import RequestContent, Sampling, chat_request
from llm_proxy.telemetry.ids import parent_of, span_id_of, trace_id_of
from llm_proxy.telemetry.parts import finish_reason, reply_messages
from llm_proxy.telemetry.prompt_request import prompt_request
from llm_proxy.telemetry.settings import SpanSettings
from llm_proxy.telemetry.trim import Fitted, fit_items, fit_messages, fit_parts
from llm_proxy.wire.dialects import DIALECTS

MAX_EVENTS = 128
"""OpenTelemetry's default limit on events per span; the rest is counted in `dropped_events_count`."""

_REMOTE_PARENT = 0x300
_PROVIDERS = {
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "": "llm_proxy",
}
"""Names that differ from ours. A call that no provider answered was answered by the proxy."""


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


def spans_of(call: CallView, settings: SpanSettings) -> list[Span]:
    """The spans of a call that has ended, its terminal span first."""
    return [_terminal_span(call, settings)]


def _terminal_span(call: CallView, settings: SpanSettings) -> Span:
    start = call.started_us * 1000
    span = Span(
        trace_id=trace_id_of(call),
        span_id=span_id_of(call.id),
        name=f"{call.operation} {call.model}".strip(),
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=start,
        end_time_unix_nano=start + round((call.total_s or 0.0) * 1e9),
    )
    if parent := parent_of(call.traceparent):
        span.parent_span_id = parent[1]
        span.flags = parent[2] | _REMOTE_PARENT
    content = _content(call)
    put_all(span.attributes, _conventions(call))
    put_all(span.attributes, _backend_hints(call))
    put_all(span.attributes, _own(call))
    if content is not None:
        put_all(span.attributes, _sampling(content.sampling))
    _put_content(span.attributes, call, content, settings.content_bytes)
    _put_events(span, call)
    _put_status(span, call)
    return span


def _content(call: CallView) -> RequestContent | None:
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
        "gen_ai.provider.name": _PROVIDERS.get(call.provider, call.provider),
        "gen_ai.request.model": call.model,
        "gen_ai.request.stream": call.stream or None,
        "gen_ai.response.id": reply.id if reply else None,
        "gen_ai.response.model": (reply.model if reply else "") or call.served_model,
        "gen_ai.response.finish_reasons": _finish_reasons(call),
        "gen_ai.response.time_to_first_chunk": call.first_event_s if call.stream else None,
        "gen_ai.agent.id": call.agent_id,
        "gen_ai.agent.name": call.agent_id,
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
        "gen_ai.request.seed": asked.seed,
        "gen_ai.request.stop_sequences": asked.stop,
        "gen_ai.request.choice.count": asked.choices if asked.choices != 1 else None,
        "gen_ai.request.reasoning.level": asked.reasoning_level,
        "gen_ai.output.type": asked.output_type,
    }


def _backend_hints(call: CallView) -> dict[str, Value]:
    """What Phoenix, Langfuse and SigNoz read beside the conventions."""
    known = {
        "call_id": call.id,
        "run_id": call.run_id,
        "agent_id": call.agent_id,
        "parent_run_id": call.parent_run_id,
        "team": call.team,
        "role": call.role,
    }
    return {
        "session.id": call.run_id,
        "user.id": call.user_id,
        "openinference.span.kind": "EMBEDDING" if call.operation == "embeddings" else "LLM",
        "metadata": msgspec.json.encode({k: v for k, v in known.items() if v}).decode(),
        "llm.token_count.completion_details.reasoning": call.usage.reasoning if call.usage else None,
        "gen_ai.server.ttft": call.first_event_s if call.stream else None,
    }


def _own(call: CallView) -> dict[str, Value]:
    verdict, rule = _overall(call)
    held: dict[str, Value] = {f"llm_proxy.held.{unit}": amount for unit, amount in call.held.items()}
    return {
        "llm_proxy.call.id": call.id,
        "llm_proxy.run.id": call.run_id,
        "llm_proxy.run.inferred": call.run_inferred or None,
        "llm_proxy.parent_run.id": call.parent_run_id,
        "llm_proxy.agent.id": call.agent_id,
        "llm_proxy.agent.team": call.team,
        "llm_proxy.agent.role": call.role,
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
    for key, value in fitted.items():
        put(target, key, value.text)
        if value.digest:
            name = key.removeprefix("gen_ai.").removeprefix("llm_proxy.")
            put(target, f"llm_proxy.trimmed.{name}.sha256", value.digest)
            put(target, f"llm_proxy.trimmed.{name}.bytes", value.length)
            put(target, f"llm_proxy.trimmed.{name}.kept", value.kept)
    if any(value.digest for value in fitted.values()):
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
            "gen_ai.provider.name": _PROVIDERS.get(attempt.provider, attempt.provider),
            "gen_ai.request.model": attempt.model,
            "llm_proxy.attempt.number": number,
            "llm_proxy.attempt.api_key": attempt.api_key or None,
            "llm_proxy.attempt.resumed": attempt.resumed or None,
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
