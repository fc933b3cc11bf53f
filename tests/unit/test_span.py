"""The span of a call: its attributes, its ids, and its content under every budget."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llm_proxy.chat.reply import ChoiceReply, Reply
from llm_proxy.records.view import Attempt, CallView, Problem, Status
from llm_proxy.telemetry.ids import span_id_of, trace_id_of
from llm_proxy.telemetry.settings import SpanSettings, resource_of
from llm_proxy.telemetry.span import MAX_EVENTS, spans_of
from tests.otlp_receiver import attributes_of
from tests.unit.telemetry_calls import STARTED_US, failed_call, plain_call, rich_call

SETTINGS = SpanSettings(service_version="0.1.0")
CONTENT = (
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
)


def span_of(call: CallView, content_bytes: int = SETTINGS.content_bytes) -> Span:
    (span,) = spans_of(call, SpanSettings(content_bytes=content_bytes))
    return span


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


def test_attempts_and_verdicts_are_events() -> None:
    events = span_of(rich_call()).events
    told = [(e.name, attributes_of(e)) for e in events]
    assert [name for name, _ in told] == ["llm_proxy.attempt"] * 2 + ["llm_proxy.decision"] * 2
    assert told[0][1]["error.type"] == "unavailable"
    assert told[0][1]["http.response.status_code"] == 503
    assert "error.type" not in told[1][1]
    assert told[3][1]["llm_proxy.rule"] == "arguments"
    assert told[3][1]["gen_ai.tool.call.id"] == "c2"
    assert all("arguments" not in key for _, attributes in told for key in attributes)


def test_every_attempt_is_an_event_in_the_order_of_asking() -> None:
    call = rich_call()
    tried = Attempt(
        target="slow",
        provider="openai",
        model="gpt-4o",
        api_key=2,
        started_s=0.5,
        ended_s=2.0,
        failure="superseded",
        detail="another target answered first",
    )
    answered = Attempt(
        target="quick",
        provider="openai",
        model="gpt-4o",
        started_s=1.25,
        ended_s=3.0,
        first_event_s=1.75,
        status=200,
    )
    refused = Attempt(
        target="first",
        provider="openai",
        model="gpt-4o",
        started_s=0.0,
        ended_s=0.5,
        status=429,
        failure="rate_limited",
    )
    span = span_of(msgspec.structs.replace(call, attempts=(refused, answered, tried), decisions=()))
    told = [(event.time_unix_nano - span.start_time_unix_nano, attributes_of(event)) for event in span.events]
    every = {"gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
    assert told == [
        (
            0,
            every
            | {
                "llm_proxy.target": "first",
                "llm_proxy.attempt.number": 1,
                "llm_proxy.attempt.duration_s": 0.5,
                "http.response.status_code": 429,
                "error.type": "rate_limited",
            },
        ),
        (
            500_000_000,
            every
            | {
                "llm_proxy.target": "slow",
                "llm_proxy.attempt.number": 2,
                "llm_proxy.attempt.api_key": 2,
                "llm_proxy.attempt.duration_s": 1.5,
                "error.type": "superseded",
                "llm_proxy.attempt.detail": "another target answered first",
            },
        ),
        (
            1_250_000_000,
            every
            | {
                "llm_proxy.target": "quick",
                "llm_proxy.attempt.number": 3,
                "llm_proxy.attempt.duration_s": 1.75,
                "llm_proxy.attempt.first_event_s": 1.75,
                "http.response.status_code": 200,
            },
        ),
    ]


def test_events_beyond_the_limit_are_counted() -> None:
    call = rich_call()
    many = msgspec.structs.replace(call, decisions=call.decisions * 100)
    span = span_of(many)
    assert len(span.events) == MAX_EVENTS
    assert span.dropped_events_count == 202 - MAX_EVENTS


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


def test_no_content_at_all_still_says_what_it_was() -> None:
    call = rich_call()
    told = attributes_of(span_of(call, 0))
    whole = attributes_of(span_of(call))
    assert not [key for key in (*CONTENT, "llm_proxy.decisions") if key in told]
    assert told["llm_proxy.content.reference"] == call.id
    for key in CONTENT:
        name = key.removeprefix("gen_ai.")
        text = str(whole[key]).encode()
        assert told[f"llm_proxy.trimmed.{name}.sha256"] == hashlib.sha256(text).hexdigest()
        assert told[f"llm_proxy.trimmed.{name}.bytes"] == len(text)
    assert "llm_proxy.content.reference" not in whole


def conversation(turns: int, size: int) -> CallView:
    """A long run: each turn reasons, calls a tool and gets `size` characters back."""
    messages: list[dict[str, object]] = [{"role": "user", "content": "start " + "ü" * size}]
    for turn in range(turns):
        call = {"id": f"c{turn}", "type": "function", "function": {"name": "read", "arguments": "{}"}}
        messages.append(
            {"role": "assistant", "reasoning": f"thought {turn}", "content": "x" * size, "tool_calls": [call]}
        )
        messages.append(
            {"role": "tool", "tool_call_id": f"c{turn}", "content": f"result {turn} " + "y" * size}
        )
    request = json.dumps({"messages": messages}).encode()
    return msgspec.structs.replace(plain_call(1), request=request)


def test_trimming_keeps_the_newest_turn_and_every_decision() -> None:
    told = attributes_of(span_of(conversation(20, 2000), 8000))
    text = str(told["gen_ai.input.messages"])
    messages = json.loads(text)
    assert len(text.encode()) <= 8000
    assert messages[-1]["role"] == "tool"
    assert messages[-1]["parts"][0]["response"].startswith("result 19 ")
    thoughts = [p["content"] for m in messages for p in m["parts"] if p["type"] == "reasoning"]
    assert thoughts == [f"thought {turn}" for turn in range(20)]
    assert "trimmed" not in messages[-1]


def test_one_long_reply_is_shortened_rather_than_lost() -> None:
    reply = Reply(choices=(ChoiceReply(index=0, text="z" * 50_000, finish="length"),))
    told = attributes_of(span_of(msgspec.structs.replace(plain_call(1), reply=reply), 2048))
    (message,) = json.loads(str(told["gen_ai.output.messages"]))
    assert message["finish_reason"] == "length"
    assert message["trimmed"] is True
    assert 400 < len(message["parts"][0]["content"]) < 2048
    assert int(str(told["llm_proxy.trimmed.output.messages.bytes"])) > 50_000


texts = st.text(max_size=300)
parts = st.one_of(
    texts,
    st.none(),
    st.lists(
        st.one_of(
            st.fixed_dictionaries({"type": st.just("text"), "text": texts}),
            st.fixed_dictionaries(
                {"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": texts})}
            ),
            st.fixed_dictionaries({"type": texts, "other": texts}),
        ),
        max_size=4,
    ),
)
calls = st.lists(
    st.fixed_dictionaries(
        {
            "id": texts,
            "function": st.fixed_dictionaries({"name": texts, "arguments": texts | st.just('{"a": 1}')}),
        }
    ),
    max_size=3,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", "odd"]), "content": parts},
        optional={"reasoning": texts, "tool_calls": calls, "tool_call_id": texts, "name": texts},
    ),
    max_size=8,
)


@given(messages, texts, st.integers(0, 4000))
def test_content_is_always_valid_json_within_its_budget(
    sent: list[dict[str, object]], reply: str, budget: int
) -> None:
    body = msgspec.json.encode(
        {"messages": sent, "tools": [{"type": "function", "function": {"name": reply}}]}
    )
    choices = tuple(ChoiceReply(index=i, text=reply, finish="stop") for i in range(3))
    call = msgspec.structs.replace(plain_call(1), request=body, reply=Reply(choices=choices))
    whole = attributes_of(span_of(call, 10_000_000))
    told = attributes_of(span_of(call, budget))
    for key in CONTENT:
        text = str(told.get(key, "[]"))
        assert len(text.encode()) <= max(budget, 2)
        trimmed = f"llm_proxy.trimmed.{key.removeprefix('gen_ai.')}.sha256" in told
        assert trimmed is (len(str(whole.get(key, "")).encode()) > budget)
        if not trimmed:
            assert told.get(key) == whole.get(key)
        for message in json.loads(text):
            assert isinstance(message, dict)
            if key == "gen_ai.output.messages":
                assert message["finish_reason"] == "stop"


def test_the_resource_names_service_and_project() -> None:
    resource = resource_of(SpanSettings(service_name="proxy-eu", environment="prod", service_version="0.1.0"))
    told = {pair.key: pair.value.string_value for pair in resource.attributes}
    assert told == {
        "service.name": "proxy-eu",
        "service.version": "0.1.0",
        "deployment.environment.name": "prod",
        "openinference.project.name": "proxy-eu",
    }


def test_only_the_span_module_names_genai_attributes() -> None:
    package = Path(__file__).parents[2] / "llm_proxy"
    naming = [p.name for p in package.rglob("*.py") if '"gen_ai.' in p.read_text()]
    assert naming == ["span.py"]
