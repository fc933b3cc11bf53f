"""Anthropic Messages requests as prompts: what is read, what is left out and named, what is refused."""

from __future__ import annotations

import json

import msgspec
import pytest

from llm_proxy.chat.events import ANTHROPIC_FORMAT, GEMINI_FORMAT, RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import (
    CallPart,
    Choose,
    Effort,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    ResultPart,
    Role,
    TextPart,
    Thinking,
    ThoughtPart,
    Tool,
    ToolChoice,
)
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire import seal
from llm_proxy.wire.anthropic_messages.prompt_read import read_prompt
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import object_spans

HELLO: list[object] = [{"role": "user", "content": "hi"}]
CACHE = {"cache_control": {"type": "ephemeral"}}
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
RAWS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def request(**fields: object) -> WireRequest:
    body = json.dumps({"model": "claude-opus-4-6", "max_tokens": 100, "messages": HELLO, **fields}).encode()
    return WireRequest(body=body, model="claude-opus-4-6", spans=object_spans(body, RAWS(body)))


def read(**fields: object) -> Prompt:
    return read_prompt(request(**fields))


def parts(role: str, *blocks: object) -> tuple[object, ...]:
    return read(messages=[{"role": role, "content": list(blocks)}]).messages[0].parts


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


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"type": "text", "text": "a", **CACHE}, TextPart(text="a", cache=True)),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
            ImagePart(data="iVBO", media_type="image/png"),
        ),
        (
            {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}, **CACHE},
            ImagePart(url="https://x.example/a.png", cache=True),
        ),
        ({"type": "image", "source": {"type": "file", "file_id": "file_1"}}, ImagePart(file_id="file_1")),
        (
            {
                "type": "document",
                "title": "Q3",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
            },
            FilePart(name="Q3", data="JVBE", media_type="application/pdf"),
        ),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
            FilePart(text="words", media_type="text/plain"),
        ),
        (
            {"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}},
            FilePart(url="https://x.example/a.pdf"),
        ),
        ({"type": "document", "source": {"type": "file", "file_id": "file_1"}}, FilePart(file_id="file_1")),
        (
            {
                "type": "document",
                "source": {
                    "type": "content",
                    "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
                },
            },
            FilePart(text="one\n\ntwo", media_type="text/plain"),
        ),
        (
            {
                "type": "search_result",
                "title": "Doc",
                "source": "https://x.example",
                "content": [{"type": "text", "text": "found"}],
            },
            TextPart(text="Doc\nhttps://x.example\n\nfound"),
        ),
        (
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "42", "is_error": True},
            ResultPart(call_id="toolu_1", parts=(TextPart(text="42"),), is_error=True),
        ),
        ({"type": "tool_result", "tool_use_id": "toolu_1"}, ResultPart(call_id="toolu_1")),
        (
            {
                "type": "tool_result",
                "tool_use_id": "toolu_1",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
                ],
                **CACHE,
            },
            ResultPart(
                call_id="toolu_1",
                parts=(TextPart(text="see"), ImagePart(url="https://x.example/a.png")),
                cache=True,
            ),
        ),
    ],
)
def test_what_a_user_says(block: object, part: object) -> None:
    assert parts("user", block) == (part,)


def thought(kind: ReasoningKind, **fields: str) -> ThoughtPart:
    return ThoughtPart(thought=ReasoningPart(kind=kind, **fields))


ENCRYPTED = ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="gAAA", id="rs_1", format=RESPONSES_FORMAT)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "ä", "n": 1.0}},
            [CallPart(id="toolu_1", name="read", arguments='{"path": "\\u00e4", "n": 1.0}')],
        ),
        (
            {"type": "tool_use", "id": "toolu_1", "name": "now", "input": {}, "caller": {"type": "direct"}},
            [CallPart(id="toolu_1", name="now", arguments="{}")],
        ),
        (
            {"type": "thinking", "thinking": "Hm.", "signature": "EqoB"},
            [thought(ReasoningKind.RAW, text="Hm.", signature="EqoB", format=ANTHROPIC_FORMAT)],
        ),
        ({"type": "thinking", "thinking": "Hm.", "signature": ""}, [thought(ReasoningKind.RAW, text="Hm.")]),
        (
            {"type": "redacted_thinking", "data": "Emw"},
            [thought(ReasoningKind.REDACTED, text="Emw", format=ANTHROPIC_FORMAT)],
        ),
        (
            {"type": "thinking", "thinking": "Hm.", "signature": seal.wrap(ENCRYPTED)},
            [
                thought(ReasoningKind.SUMMARY, text="Hm.", id="rs_1", format=RESPONSES_FORMAT),
                ThoughtPart(thought=ENCRYPTED),
            ],
        ),
        (
            {
                "type": "thinking",
                "thinking": "Hm.",
                "signature": seal.wrap(
                    ReasoningPart(kind=ReasoningKind.RAW, signature="Cg==", format=GEMINI_FORMAT)
                ),
            },
            [thought(ReasoningKind.RAW, text="Hm.", signature="Cg==", format=GEMINI_FORMAT)],
        ),
        (
            {"type": "redacted_thinking", "data": seal.wrap(ENCRYPTED)},
            [ThoughtPart(thought=ENCRYPTED)],
        ),
        ({"type": "compaction", "content": "So far: 1."}, [TextPart(text="So far: 1.")]),
    ],
)
def test_what_an_assistant_said(block: object, expected: list[object]) -> None:
    assert list(parts("assistant", block)) == expected


def test_a_calls_own_seal_comes_back_to_it() -> None:
    carried = ReasoningPart(kind=ReasoningKind.ENCRYPTED, signature="Cg==", id="call_1", format=GEMINI_FORMAT)
    read_parts = parts(
        "assistant",
        {"type": "redacted_thinking", "data": seal.wrap(carried)},
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {}},
    )
    assert read_parts == (CallPart(id="call_1", name="f", arguments="{}", signature="Cg=="),)


def test_what_anthropics_servers_did_is_left_out() -> None:
    prompt = read(
        messages=[
            {"role": "user", "content": "news?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
                    {
                        "type": "web_search_tool_result",
                        "tool_use_id": "s",
                        "content": [
                            {"type": "web_search_result", "url": "https://x", "encrypted_content": "E"}
                        ],
                    },
                    {"type": "text", "text": "Rain.", "citations": [{"type": "web_search_result_location"}]},
                ],
            },
        ]
    )
    assert prompt.messages[1].parts == (TextPart(text="Rain."),)
    assert prompt.dropped == (
        "messages[1] (server_tool_use)",
        "messages[1] (web_search_tool_result)",
        "messages.citations",
    )


def test_system_messages() -> None:
    prompt = read(
        system="A",
        messages=[
            {"role": "system", "content": "B"},
            {"role": "user", "content": "hi"},
            {"role": "system", "content": [{"type": "text", "text": "C"}]},
        ],
    )
    assert prompt.system == (TextPart(text="A"), TextPart(text="B"))
    assert [message.role for message in prompt.messages] == [Role.USER, Role.SYSTEM]


def test_a_marker_of_the_whole_request_is_its_last_parts() -> None:
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    prompt = read(messages=[{"role": "user", "content": blocks}], **CACHE)
    assert prompt.messages[0].parts == (TextPart(text="a"), TextPart(text="b", cache=True))


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
