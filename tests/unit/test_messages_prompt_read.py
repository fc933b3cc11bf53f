"""Anthropic Messages requests as prompts: what is read, what is left out and named, what is refused."""

from __future__ import annotations

import json

import pytest

from llm_proxy.chat.prompt import (
    Choose,
    Effort,
    Message,
    OutputFormat,
    Prompt,
    Role,
    TextPart,
    Thinking,
    Tool,
    ToolChoice,
)
from llm_proxy.errors import Kind, ProxyError
from tests.unit.messages_reading import CACHE, SCHEMA, read


def refused(**fields: object) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        read(**fields)
    assert not caught.value.retryable
    return caught.value


def test_the_least_request() -> None:
    assert read() == Prompt(
        model="claude-opus-4-6",
        messages=(Message(role=Role.USER, parts=(TextPart(text="hi"),)),),
        max_output=100,
    )


def test_nulls_are_as_good_as_absent() -> None:
    names = (
        "system", "stream", "temperature", "top_p", "top_k", "stop_sequences", "tools", "tool_choice",
        "thinking", "output_config", "output_format", "metadata", "service_tier", "cache_control",
        "container",
    )  # fmt: skip
    assert read(**dict.fromkeys(names)) == read()


def test_what_a_coding_agent_sends() -> None:
    """The first request of Claude Code, in small."""
    prompt = read(
        stream=True,
        system=[
            {"type": "text", "text": "You are an agent."},
            {"type": "text", "text": "Rules.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ],
        messages=[{"role": "user", "content": [{"type": "text", "text": "go", **CACHE}]}],
        tools=[
            {"name": "Read", "description": "Reads.", "input_schema": SCHEMA, "eager_input_streaming": True},
            {"name": "Edit", "input_schema": SCHEMA, "eager_input_streaming": True, **CACHE},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
        ],
        metadata={"user_id": '{"device_id": "d", "session_id": "s"}'},
        thinking={"type": "adaptive"},
        output_config={"effort": "xhigh", "task_budget": {"type": "tokens", "total": 5}},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        betas=["context-1m-2025-08-07"],
        mcp_servers=[{"type": "url", "url": "https://mcp.example", "name": "m"}],
    )
    schema = json.dumps(SCHEMA).encode()
    assert prompt == Prompt(
        model="claude-opus-4-6",
        messages=(Message(role=Role.USER, parts=(TextPart(text="go", cache=True),)),),
        system=(TextPart(text="You are an agent."), TextPart(text="Rules.", cache=True)),
        stream=True,
        include_usage=True,
        tools=(
            Tool(name="Read", description="Reads.", parameters=schema),
            Tool(name="Edit", parameters=schema, cache=True),
        ),
        max_output=100,
        thinking=Thinking(effort=Effort.XHIGH, enabled=True, adaptive=True),
        dropped=(
            "tools.eager_input_streaming",
            "tools[2] (web_search_20250305)",
            "metadata.user_id",
            "output_config.task_budget",
            "context_management",
            "betas",
            "mcp_servers",
            "cache_control.ttl",
        ),
    )


def test_sampling_and_the_rest() -> None:
    prompt = read(
        temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END"], service_tier="standard_only",
        metadata={"user_id": "u1", "team": "t"}, inference_geo="us",
    )  # fmt: skip
    assert (prompt.temperature, prompt.top_p, prompt.top_k, prompt.stop) == (0.5, 0.9, 40, ("END",))
    assert (prompt.user, prompt.service_tier) == ("u1", "default")
    assert prompt.dropped == ("metadata.team", "inference_geo")


def test_an_older_session_id_is_no_user() -> None:
    prompt = read(metadata={"user_id": "user_ab12_account_9-9_session_7-7"})
    assert (prompt.user, prompt.dropped) == ("", ("metadata.user_id",))


TOOLS = [{"name": "f", "input_schema": SCHEMA, "strict": True}]


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, ToolChoice(mode=Choose.AUTO), None),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice(mode=Choose.REQUIRED), False),
        ({"type": "tool", "name": "f"}, ToolChoice(mode=Choose.TOOL, name="f"), None),
        ({"type": "none", "disable_parallel_tool_use": False}, ToolChoice(mode=Choose.NONE), True),
    ],
)
def test_tool_choice(choice: object, expected: ToolChoice, parallel: bool | None) -> None:
    prompt = read(tools=TOOLS, tool_choice=choice)
    assert (prompt.tool_choice, prompt.parallel_calls) == (expected, parallel)
    assert prompt.tools[0].strict is True


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}},
            Thinking(enabled=True, budget=2000, summary="omitted"),
        ),
        ({"thinking": {"type": "disabled"}}, Thinking(enabled=False)),
        ({"output_config": {"effort": "low"}}, Thinking(effort=Effort.LOW)),
        ({"output_config": {"effort": None}}, None),
    ],
)
def test_thinking(fields: dict[str, object], expected: Thinking | None) -> None:
    assert read(**fields).thinking == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"output_format": {"type": "json_schema", "schema": SCHEMA}},
    ],
)
def test_output_format(fields: dict[str, object]) -> None:
    assert read(**fields).output == OutputFormat(schema=json.dumps(SCHEMA).encode())


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        (
            Kind.UNSUPPORTED_FEATURE,
            {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
            "messages[0].content[0]",
        ),
        (Kind.UNSUPPORTED_FEATURE, {"tools": [], "tool_choice": {"type": "any"}}, "tool_choice"),
        (
            Kind.UNSUPPORTED_FEATURE,
            {
                "tools": [{"type": "bash_20250124", "name": "bash"}],
                "tool_choice": {"type": "tool", "name": "bash"},
            },
            "tool_choice",
        ),
        (Kind.UNSUPPORTED_FEATURE, {"system": [{"type": "image"}]}, "system"),
        (Kind.UNSUPPORTED_FEATURE, {"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
        (Kind.INVALID_REQUEST, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        (Kind.INVALID_REQUEST, {"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        (Kind.INVALID_REQUEST, {"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0]"),
        (
            Kind.INVALID_REQUEST,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": [1]}]}]},
            "messages[0].content[0].text",
        ),
        (
            Kind.INVALID_REQUEST,
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages[0].content[0].source",
        ),
        (Kind.INVALID_REQUEST, {"thinking": {"type": "sometimes"}}, "thinking.type"),
        (Kind.INVALID_REQUEST, {"tool_choice": {"type": "some"}}, "tool_choice.type"),
        (Kind.INVALID_REQUEST, {"output_config": {"effort": "huge"}}, "output_config.effort"),
        (Kind.INVALID_REQUEST, {"tools": [{"input_schema": SCHEMA}]}, "tools[0].name"),
    ],
)
def test_refusals(kind: Kind, fields: dict[str, object], param: str) -> None:
    error = refused(**fields)
    assert (error.kind, error.param) == (kind, param)
