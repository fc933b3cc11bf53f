"""Requests as a span tells them: every dialect in the same parts, the reasoning sent back among them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llm_proxy.records.view import CallView, Status
from llm_proxy.telemetry.items import Item
from llm_proxy.telemetry.parts import ReasoningContent, TextPart, ToolCallPart, ToolResponsePart, UriPart
from llm_proxy.telemetry.prompt_request import prompt_request
from llm_proxy.telemetry.settings import SpanSettings
from llm_proxy.telemetry.spans import spans_of
from llm_proxy.wire.dialects import DIALECTS
from tests.e2e.reasoning_replies import CASES, RESPONSES, Case
from tests.otlp_receiver import attributes_of

every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@every_case
def test_history_that_comes_back_is_read_as_the_reply_was(case: Case) -> None:
    facts = [DIALECTS[case.dialect].message_facts(json.dumps(m).encode()) for m in case.message]
    found = [
        (part.kind.value, part.text.strip(), *([part.signature] if part.signature else []))
        for fact in facts
        for part in fact.reasoning
    ]
    assert sorted(found) == sorted(case.parts)


@every_case
def test_the_span_tells_the_reasoning_of_the_history(case: Case) -> None:
    said = {"role": "user", "content": "two plus two?"}
    key = "input" if case.dialect == RESPONSES else "messages"
    asked: dict[str, Any] = {"model": "m", key: [said, *case.message, said]}
    if case.dialect == "anthropic_messages":
        asked["max_tokens"] = 9
    call = CallView(
        id="0199a000-0000-7000-8000-000000000001",
        run_id="r",
        agent_id="a",
        started_us=1,
        status=Status.OK,
        dialect=case.dialect,
        request=json.dumps(asked).encode(),
    )
    span = spans_of(Item(call=call), SpanSettings())[0]
    told = json.loads(str(attributes_of(span)["gen_ai.input.messages"]))
    assert told[0]["role"] == "user"
    parts = [part for message in told for part in message["parts"] if part["type"] == "reasoning"]
    found = [(part["kind"], part["content"] or part["encrypted_content"]) for part in parts]
    assert sorted((kind, text.strip()) for kind, text in found) == sorted(p[:2] for p in case.parts)


def test_parts_of_every_kind() -> None:
    body = {
        "model": "m",
        "max_tokens": 900,
        "temperature": 0.5,
        "system": "be good",
        "stop_sequences": ["END"],
        "tools": [{"name": "get", "description": "gets", "input_schema": {"type": "object"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "redacted_thinking", "data": "Emw"},
                    {"type": "tool_use", "id": "t1", "name": "get", "input": {"a": 1}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "one"}]},
        ],
    }
    told = prompt_request(DIALECTS["anthropic_messages"], json.dumps(body).encode())
    assert told.system == (TextPart("be good"),)
    assert [message.role for message in told.messages] == ["user", "assistant", "tool"]
    _, image = told.messages[0].parts
    assert image == UriPart("image", "https://example.com/a.png")
    hidden, call = told.messages[1].parts
    assert hidden == ReasoningContent("", "redacted", encrypted_content="Emw", redacted=True)
    assert call == ToolCallPart("t1", "get", msgspec.Raw(b'{"a":1}'))
    assert told.messages[2].parts == (ToolResponsePart("t1", "one"),)
    assert (told.sampling.max_tokens, told.sampling.temperature, told.sampling.stop) == (900, 0.5, ("END",))
    assert len(told.tools) == 1


@pytest.mark.parametrize("dialect", ["openai_responses", "anthropic_messages", "openai_embeddings"])
def test_a_body_that_cannot_be_read_in_parts_is_told_as_text(dialect: str) -> None:
    body = b'{"model":"m","input":7,"messages":"no"}'
    told = prompt_request(DIALECTS[dialect], body)
    (message,) = told.messages
    assert message.role == "user"
    assert [getattr(part, "content", "") for part in message.parts] == [body.decode()]
