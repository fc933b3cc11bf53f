"""Requests as OpenAI's own client, the Agents SDK and Codex send them, read into neutral terms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.chat.prompt import Effort, OutputFormat, Prompt, Role, Thinking
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_responses.prompt_read import read_prompt
from llm_proxy.wire.openai_responses.request import parse
from tests.unit.responses_reading import CRM, PATCH, SCHEMA, WEATHER, read, text, user


def refused(**body: Any) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        read(**body)
    assert not caught.value.retryable
    return caught.value


def test_text_and_nothing_more() -> None:
    assert read() == Prompt(model="gpt-5.2", messages=(user(text("Hi")),))


def test_settings() -> None:
    prompt = read(
        instructions="Be brief.",
        stream=True,
        parallel_tool_calls=False,
        max_output_tokens=500,
        temperature=0.2,
        top_p=0.9,
        reasoning={"effort": "xhigh", "summary": "detailed"},
        text={"verbosity": "low", "format": {"type": "json_object"}},
        user="old",
        safety_identifier="new",
        service_tier="flex",
        prompt_cache_key="key",
    )
    assert prompt == Prompt(
        model="gpt-5.2",
        messages=(user(text("Hi")),),
        system=(text("Be brief."),),
        stream=True,
        include_usage=True,
        parallel_calls=False,
        max_output=500,
        temperature=0.2,
        top_p=0.9,
        thinking=Thinking(effort=Effort.XHIGH, summary="detailed"),
        output=OutputFormat(),
        verbosity="low",
        user="new",
        service_tier="flex",
        cache_key="key",
    )


@pytest.mark.parametrize(
    ("reasoning", "thinking"),
    [
        (None, None),
        ({}, None),
        ({"effort": None, "summary": None}, None),
        ({"effort": "none"}, Thinking(effort=Effort.NONE)),
        ({"generate_summary": "auto"}, Thinking(summary="auto")),
    ],
)
def test_reasoning(reasoning: Any, thinking: Thinking | None) -> None:
    assert read(reasoning=reasoning).thinking == thinking


def test_a_schema_for_the_output() -> None:
    form = {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True, "description": "A city."}
    output = read(text={"format": form}).output
    assert output is not None
    assert json.loads(output.schema) == SCHEMA
    assert (output.name, output.strict, output.description) == ("city", True, "A city.")
    assert read(text={"format": {"type": "text"}}).output is None


class TestDropped:
    def test_in_the_order_of_the_body(self) -> None:
        body = {
            "include": ["reasoning.encrypted_content"],
            "model": "gpt-5.2",
            "tools": [{"type": "web_search"}],
            "store": False,
            "client_metadata": {"session_id": "s"},
            "input": [
                {
                    "type": "web_search_call",
                    "id": "ws_1",
                    "status": "completed",
                    "action": {"type": "search"},
                },
                {"role": "assistant", "content": "Found.", "phase": "final_answer"},
                {"role": "assistant", "content": "More.", "phase": "final_answer"},
                {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot"}},
            ],
            "reasoning": {"effort": "low", "context": "auto"},
            "metadata": {"a": "b"},
            "background": False,
            "truncation": "auto",
            "text": {"verbosity": "low", "x": 1},
            "vendor_key": 1,
        }
        assert read_prompt(parse(json.dumps(body).encode())).dropped == (
            "include",
            "tools[0] (web_search)",
            "client_metadata",
            "input[0] (web_search_call)",
            "input.phase",
            "input[3] (computer_call_output)",
            "reasoning.context",
            "metadata",
            "truncation",
            "text.x",
            "vendor_key",
        )

    def test_citations(self) -> None:
        part = {
            "type": "output_text",
            "text": "x",
            "annotations": [{"type": "url_citation", "url": "https://x"}],
        }
        assert read(input=[{"role": "assistant", "content": [part]}]).dropped == ("input.annotations",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[0]"),
        ({"input": [{"type": "telepathy", "content": 7}]}, None),
        ({"input": [{"type": "telepathy"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, "input[0].content[0]"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        (
            {
                "tools": [{"type": "web_search"}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "web_search"}],
                },
            },
            "tool_choice",
        ),
    ],
)
def test_what_only_the_vendor_can_do_is_refused(body: dict[str, Any], param: str | None) -> None:
    error = refused(**body)
    if param is None:  # of no known type, and of no known shape either
        assert error.kind is Kind.INVALID_REQUEST
    else:
        assert (error.kind, error.param) == (Kind.UNSUPPORTED_FEATURE, param)
        assert param in error.message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None, "prompt": None}, "input"),
        ({"input": [{"content": "Hi"}]}, "input[0]"),
        ({"input": [{"role": "tool", "content": "Hi"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": 7}]}, "input[0].content"),
        (
            {"input": [{"role": "system", "content": [{"type": "input_image", "file_id": "x"}]}]},
            "input[0].content[0]",
        ),
        (
            {"input": [{"role": "assistant", "content": [{"type": "input_image", "file_id": "x"}]}]},
            "input[0].content[0]",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:x,y"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "input[0].content[0].input_audio",
        ),
        ({"input": [{"type": "function_call", "name": "w", "arguments": "{}"}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0]"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "refusal"}]}]},
            "input[0].output[0]",
        ),
        ({"reasoning": {"effort": "immense"}}, "reasoning.effort"),
        ({"temperature": "hot"}, "temperature"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "namespace", "tools": []}]}, "tools[0].name"),
        ({"tool_choice": "always"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ],
)
def test_what_cannot_be_read_is_refused(body: dict[str, Any], param: str) -> None:
    error = refused(**body)
    assert (error.kind, error.param) == (Kind.INVALID_REQUEST, param)


def test_the_first_request_of_a_coding_agent() -> None:
    """As the Codex CLI sends it: tools of every kind, a long prompt, reasoning that the caller keeps."""
    functions = [
        {**WEATHER, "name": f"tool_{n}", "strict": False, "description": "d" * 900} for n in range(30)
    ]
    body = {
        "model": "gpt-5.2-codex",
        "instructions": "You are a coding agent. " * 4_000,
        "input": [
            {
                "type": "message",
                "role": "developer",
                "content": [{"type": "input_text", "text": "<permissions>"}],
            },
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<environment>"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix the bug."}]},
        ],
        "tools": [
            *functions,
            PATCH,
            CRM,
            {"type": "web_search", "external_web_access": False},
            {"type": "local_shell"},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0198c0de-0000-7000-8000-000000000001",
        "text": {"verbosity": "low"},
        "client_metadata": {"x-codex-installation-id": "i"},
    }
    prompt = read_prompt(parse(json.dumps(body).encode()))
    assert len(prompt.tools) == 33
    assert [part.text[:12] for part in prompt.system] == ["You are a co", "<permissions"]
    assert [message.role for message in prompt.messages] == [Role.USER, Role.USER]
    assert prompt.thinking == Thinking(effort=Effort.MEDIUM, summary="auto")
    assert prompt.dropped == (
        "tools[32] (web_search)",
        "tools[33] (local_shell)",
        "include",
        "client_metadata",
    )
