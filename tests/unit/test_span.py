"""The span of a call: its attributes, its ids and its status."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llm_proxy.records.view import Problem, Status
from llm_proxy.telemetry.ids import span_id_of, trace_id_of
from llm_proxy.telemetry.settings import SpanSettings, resource_of
from tests.otlp_receiver import attributes_of
from tests.unit.span_reading import CONTENT, span_of
from tests.unit.telemetry_calls import STARTED_US, failed_call, plain_call, rich_call


def test_a_rich_call_has_every_attribute_that_backends_read() -> None:
    told = attributes_of(span_of(rich_call()))
    content = {key: json.loads(str(told.pop(key))) for key in CONTENT}
    verdicts = json.loads(str(told.pop("llm_proxy.decisions")))
    results = json.loads(str(told.pop("llm_proxy.tool_results")))
    metadata = json.loads(str(told.pop("metadata")))
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 512,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ["END"],
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.output.type": "json",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "gpt-4o-mini-2024",
        "gen_ai.response.finish_reasons": ["tool_call"],
        "gen_ai.response.time_to_first_chunk": 0.5,
        "gen_ai.server.ttft": 0.5,
        "gen_ai.agent.id": "triage-bot",
        "gen_ai.agent.name": "triage-bot",
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 45,
        "gen_ai.usage.cache_read.input_tokens": 100,
        "gen_ai.usage.cache_write.input_tokens": 5,
        "gen_ai.usage.cache_creation.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 30,
        "llm.token_count.completion_details.reasoning": 30,
        "llm.model_name": "gpt-4o-mini-2024",
        "llm.cost.total": 0.001234,
        "server.address": "127.0.0.1",
        "server.port": 8000,
        "session.id": "run-1",
        "user.id": "ada@example.com",
        "openinference.span.kind": "LLM",
        "llm_proxy.call.id": "0199a000-0000-7000-8000-000000000001",
        "llm_proxy.run.id": "run-1",
        "llm_proxy.parent_run.id": "run-0",
        "llm_proxy.agent.id": "triage-bot",
        "llm_proxy.agent.team": "support",
        "llm_proxy.agent.role": "support",
        "llm_proxy.key.id": "key-1",
        "llm_proxy.user.verified": True,
        "llm_proxy.actors": ["triage-bot", "planner"],
        "llm_proxy.tags": ["nightly", "triage"],
        "llm_proxy.dialect": "openai_chat",
        "llm_proxy.status": "ok",
        "llm_proxy.target": "local",
        "llm_proxy.attempts": 2,
        "llm_proxy.decision": "deny",
        "llm_proxy.rule": "arguments",
        "llm_proxy.policy": "ab" * 32,
        "llm_proxy.cost_usd": 0.001234,
        "llm_proxy.cost_micro_usd": 1234,
        "llm_proxy.cost_label": "estimated",
        "llm_proxy.overhead_ms": 1.25,
        "llm_proxy.held.tokens": 4096,
        "llm_proxy.held.micro_usd": 900,
    }
    assert metadata["run_id"] == "run-1"
    assert metadata["agent_id"] == "triage-bot"
    assert [v["decision"] for v in verdicts] == ["allow", "deny"]
    assert results == [{"tool_call_id": "c0", "tool": "read_issue", "digest": "cd" * 32}]
    assert content["gen_ai.system_instructions"] == [
        {"type": "text", "content": "You triage issues."},
        {"type": "text", "content": "Be brief."},
    ]
    assert content["gen_ai.tool.definitions"][0]["name"] == "read_issue"
    data_url = "data:image/png;base64,iVBORw0KGgo="
    assert content["gen_ai.input.messages"] == [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "Look at these ünïcode pictures"},
                {"type": "uri", "modality": "image", "uri": "https://example.com/a.png"},
                {
                    "type": "blob",
                    "modality": "image",
                    "content": "",
                    "mime_type": "image/png",
                    "bytes": len(data_url),
                    "sha256": hashlib.sha256(data_url.encode()).hexdigest(),
                },
            ],
        },
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "I should read the issue first.", "kind": "raw"},
                {"type": "tool_call", "id": "c0", "name": "read_issue", "arguments": {"number": 7}},
            ],
        },
        {
            "role": "tool",
            "parts": [{"type": "tool_call_response", "id": "c0", "response": "Title: it crashes"}],
        },
    ]
    assert content["gen_ai.output.messages"] == [
        {
            "role": "assistant",
            "finish_reason": "tool_call",
            "parts": [
                {"type": "reasoning", "content": "It is a crash, so a bug.", "kind": "raw"},
                {"type": "reasoning", "content": "", "kind": "encrypted", "encrypted_content": "gAAA"},
                {"type": "text", "content": "Labelling it."},
                {
                    "type": "tool_call",
                    "id": "c1",
                    "name": "label_issue",
                    "arguments": {"number": 7, "label": "bug"},
                },
                {"type": "tool_call", "id": "c2", "name": "close_issue", "arguments": '{"number": 7'},
            ],
        }
    ]


def test_ids_name_kind_and_times() -> None:
    call = rich_call()
    span = span_of(call)
    assert span.name == "chat gpt-4o-mini"
    assert span.kind == Span.SPAN_KIND_CLIENT
    assert span.span_id == hashlib.sha256(call.id.encode()).digest()[:8] == span_id_of(call.id)
    assert span.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert span.parent_span_id.hex() == "b7ad6b7169203331"
    assert span.start_time_unix_nano == STARTED_US * 1000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1_500_000_000
    assert span_of(call) == span


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
    ],
)
def test_without_a_valid_traceparent_the_trace_is_the_runs(traceparent: str) -> None:
    call = msgspec.structs.replace(plain_call(1), traceparent=traceparent)
    other = msgspec.structs.replace(plain_call(2), agent_id="other-bot")
    span = span_of(call)
    assert span.trace_id == trace_id_of(plain_call(2))
    assert span.trace_id != trace_id_of(other), "a run id is scoped to its agent"
    assert span.parent_span_id == b""
    runless = [trace_id_of(msgspec.structs.replace(plain_call(n), run_id="")) for n in (1, 2)]
    assert runless[0] != runless[1]


@pytest.mark.parametrize(
    ("status", "problem", "error"),
    [
        (
            Status.REFUSED,
            Problem(kind="budget_exceeded", message="daily is used up", status=429),
            "budget_exceeded",
        ),
        (Status.FAILED, Problem(kind="upstream_failed", message="no target answered"), "upstream_failed"),
        (Status.CUT, None, "cut"),
        (Status.INTERRUPTED, None, "interrupted"),
        (Status.OK, None, ""),
        (Status.CLIENT_GONE, None, ""),
    ],
)
def test_status_is_error_where_the_call_did_not_work(
    status: Status, problem: Problem | None, error: str
) -> None:
    span = span_of(failed_call(status, problem, b'{"messages": []}'))
    assert attributes_of(span).get("error.type", "") == error
    assert (span.status.code == 2) is bool(error)
    if problem:
        assert span.status.message == problem.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[1, 2]",
        b'{"messages": 7, "tools": {"a": 1}, "stop": 3, "temperature": "hot", "n": true, "seed": 1e9}',
        b'{"messages": [null, 3, {"role": 9, "content": {"a": 1}}, {"role": "user", "content": [1, {}]}]}',
        b'{"messages": [{"role": "assistant", "tool_calls": [1, {"function": 2}],"reasoning_details": [3]}]}',
        b'{"messages": [{"role": "tool"}, {"role": "user", "content": "\\ud800"}]}',
        b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"seed": 99999999999999999999999999, "temperature": 1e308}',
    ],
)
def test_a_malformed_request_still_gives_a_span(body: bytes) -> None:
    problem = Problem(kind="invalid_request", message="the body is no chat request", status=400)
    span = span_of(failed_call(Status.REFUSED, problem, body))
    assert Span.FromString(span.SerializeToString()) == span
    told = attributes_of(span)
    for key in CONTENT:
        json.loads(str(told.get(key, "[]")))


def test_text_that_utf8_cannot_carry_and_numbers_too_large_are_told_anyway() -> None:
    call = msgspec.structs.replace(plain_call(1), user_id="ada\ud800", held={"tokens": 2**70})
    told = attributes_of(span_of(call))
    assert told["user.id"] == "ada?"
    assert told["llm_proxy.held.tokens"] == str(2**70)


def test_the_resource_names_service_and_project() -> None:
    resource = resource_of(SpanSettings(service_name="proxy-eu", environment="prod", service_version="0.1.0"))
    told = {pair.key: pair.value.string_value for pair in resource.attributes}
    assert told == {
        "service.name": "proxy-eu",
        "service.version": "0.1.0",
        "deployment.environment.name": "prod",
        "openinference.project.name": "proxy-eu",
    }


def test_only_the_modules_of_spans_name_genai_attributes() -> None:
    package = Path(__file__).parents[2] / "llm_proxy"
    naming = {p.relative_to(package).as_posix() for p in package.rglob("*.py") if '"gen_ai.' in p.read_text()}
    assert naming == {
        f"telemetry/{name}.py" for name in ("otlp_metrics", "run_span", "span", "tool_span", "whose")
    }
