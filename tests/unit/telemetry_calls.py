"""Calls for the telemetry tests: a rich one, a plain one, refused ones."""

from __future__ import annotations

import json

import msgspec

from llm_proxy.chat.events import ReasoningKind, Usage
from llm_proxy.chat.reply import ChoiceReply, ReasoningPart, Reply, ToolCall
from llm_proxy.records.view import (
    Attempt,
    CallView,
    CostLabel,
    Decision,
    Problem,
    Status,
    ToolResultView,
)
from llm_proxy.telemetry.metrics import CallFacts

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STARTED_US = 1_795_000_000_000_000

REQUEST = {
    "model": "gpt-4o-mini",
    "stream": True,
    "temperature": 0.2,
    "max_completion_tokens": 512,
    "seed": 7,
    "stop": ["END"],
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "messages": [
        {"role": "system", "content": "You triage issues."},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look at these ünïcode pictures"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "I should read the issue first.",
            "tool_calls": [
                {
                    "id": "c0",
                    "type": "function",
                    "function": {"name": "read_issue", "arguments": '{"number": 7}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c0", "content": "Title: it crashes"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "read_issue",
                "description": "Reads one issue",
                "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}},
            },
        }
    ],
}


def facts_of(call: CallView) -> CallFacts:
    """As the journal counts it."""
    return CallFacts(
        agent=call.agent_id,
        model=call.model,
        status=call.status,
        error=call.problem.kind if call.problem else "",
        operation=call.operation,
        provider=call.provider,
        served_model=call.served_model,
        stream=call.stream,
        usage=call.usage,
        cost_micro_usd=call.cost_micro_usd,
        overhead_s=call.overhead_ms / 1000 if call.overhead_ms is not None else None,
        first_event_s=call.first_event_s,
        total_s=call.total_s,
        attempts=call.attempts,
        decisions=call.decisions,
    )


def rich_call() -> CallView:
    """Streamed, with reasoning, two tool calls (one denied), a failed first attempt and a parent span."""
    calls = (
        ToolCall(choice=0, index=0, id="c1", name="label_issue", arguments='{"number": 7, "label": "bug"}'),
        ToolCall(choice=0, index=1, id="c2", name="close_issue", arguments='{"number": 7'),
    )
    return CallView(
        id="0199a000-0000-7000-8000-000000000001",
        run_id="run-1",
        agent_id="triage-bot",
        started_us=STARTED_US,
        status=Status.OK,
        parent_run_id="run-0",
        team="support",
        role="support",
        user_id="ada@example.com",
        user_verified=True,
        actors=("triage-bot", "planner"),
        key_id="key-1",
        tags=("nightly", "triage"),
        traceparent=TRACEPARENT,
        stream=True,
        model="gpt-4o-mini",
        served_model="gpt-4o-mini-2024",
        target="local",
        provider="openai",
        server_address="127.0.0.1:8000",
        attempts=(
            Attempt(
                target="openai",
                provider="openai",
                model="gpt-4o-mini",
                started_s=0.001,
                ended_s=0.2,
                status=503,
                failure="unavailable",
                detail="HTTP 503",
            ),
            Attempt(
                target="local",
                provider="openai",
                model="llama",
                started_s=0.25,
                ended_s=1.5,
                first_event_s=0.5,
                status=200,
            ),
        ),
        first_event_s=0.5,
        total_s=1.5,
        overhead_ms=1.25,
        finish_reasons=("tool_calls",),
        usage=Usage(input=120, output=45, cached=100, cache_write=5, reasoning=30),
        cost_micro_usd=1_234,
        cost_label=CostLabel.ESTIMATED,
        decisions=(
            Decision(
                tool_call_id="c1",
                tool="label_issue",
                arguments=calls[0].arguments,
                decision="allow",
                rule="labels",
            ),
            Decision(
                index=1,
                tool_call_id="c2",
                tool="close_issue",
                arguments=calls[1].arguments,
                decision="deny",
                rule="arguments",
                why="not valid JSON",
                effect="write",
                hits=("arguments",),
                policy="ab" * 32,
            ),
        ),
        results=(ToolResultView(tool_call_id="c0", tool="read_issue", digest="cd" * 32),),
        policy="ab" * 32,
        held={"tokens": 4096, "micro_usd": 900},
        request=json.dumps(REQUEST).encode(),
        reply=Reply(
            id="chatcmpl-1",
            model="gpt-4o-mini-2024",
            usage=Usage(input=120, output=45),
            complete=True,
            choices=(
                ChoiceReply(
                    index=0,
                    text="Labelling it.",
                    reasoning=(
                        ReasoningPart(kind=ReasoningKind.RAW, text="It is a crash, so a bug."),
                        ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="gAAA"),
                    ),
                    calls=calls,
                    finish="tool_calls",
                ),
            ),
        ),
    )


def plain_call(number: int) -> CallView:
    return CallView(
        id=f"0199a000-0000-7000-8000-{number:012d}",
        run_id="run-1",
        agent_id="triage-bot",
        started_us=STARTED_US + number,
        status=Status.OK,
        model="gpt-4o-mini",
        total_s=0.5,
        request=json.dumps({"messages": [{"role": "user", "content": f"question {number}"}]}).encode(),
        reply=Reply(choices=(ChoiceReply(index=0, text=f"answer {number}", finish="stop"),), complete=True),
    )


def failed_call(status: Status, problem: Problem | None, request: bytes) -> CallView:
    return msgspec.structs.replace(plain_call(9), status=status, problem=problem, request=request, reply=None)
