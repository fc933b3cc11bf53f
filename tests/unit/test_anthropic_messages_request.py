"""Anthropic requests: what is read of them, what is refused, and what is changed on the way."""

from __future__ import annotations

import json

import pytest

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES, COUNT_TOKENS
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import splice

SESSION = "3f2b8a90-55d1-4b0e-9a53-0d9c3a1f7e21"
HELLO = {"role": "user", "content": "hi"}


def parse(**fields: object) -> WireRequest:
    body = {"model": "claude-sonnet-4-5", "max_tokens": 1024, "messages": [HELLO], **fields}
    return ANTHROPIC_MESSAGES.parse(json.dumps(body, ensure_ascii=False).encode())


def refused(body: bytes) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        ANTHROPIC_MESSAGES.parse(body)
    assert (caught.value.kind, caught.value.retryable) == (Kind.INVALID_REQUEST, False)
    return caught.value


def coding_agent() -> bytes:
    """The first request of a coding agent: many tools, 100 KB of system prompt, and keys of several betas."""
    cache = {"cache_control": {"type": "ephemeral"}}
    tools = [
        *[
            {"name": f"Tool{n}", "description": "Does\nthings", "input_schema": {"type": "object"}}
            for n in range(38)
        ],
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
        {"type": "browser_toolset_20260801"},
    ]
    body = {
        "model": "claude-opus-4-6",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Fix the bug", **cache}]},
        ],
        "system": [{"type": "text", "text": "You are…" * 12_000, **cache}],
        "tools": tools,
        "metadata": {"user_id": json.dumps({"device_id": "d", "account_uuid": "", "session_id": SESSION})},
        "max_tokens": 32_000,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": True,
    }
    return json.dumps(body, ensure_ascii=False).encode()


def test_a_coding_agents_first_request() -> None:
    body = coding_agent()
    request = ANTHROPIC_MESSAGES.parse(body)
    assert request.body is body
    assert (request.model, request.stream, request.n, request.include_usage) == (
        "claude-opus-4-6",
        True,
        1,
        True,
    )
    assert (request.max_output, request.cap_fields) == (32_000, ("max_tokens",))
    assert (request.run, request.user) == (SESSION, "")
    assert len(request.tool_names) == 40
    assert request.tool_names[-2:] == ("web_search", "browser_toolset_20260801")
    assert json.loads(request.tools) == json.loads(body)["tools"]
    assert not request.tool_forced
    assert [json.loads(raw) for raw in request.messages] == json.loads(body)["messages"]
    assert [body[start:end] for start, end in request.message_spans] == list(request.messages)
    assert {key: json.loads(body[slice(*span)]) for key, span in request.spans.items()} == json.loads(body)


@pytest.mark.parametrize(
    ("choice", "forced"),
    [
        ({"type": "auto"}, False),
        ({"type": "none"}, False),
        ({"type": "any"}, True),
        ({"type": "tool", "name": "read"}, True),
        (None, False),
    ],
)
def test_a_forced_tool(choice: object, *, forced: bool) -> None:
    assert parse(tool_choice=choice, tools=[{"name": "read"}]).tool_forced is forced


@pytest.mark.parametrize(
    ("metadata", "run", "user"),
    [
        (None, "", ""),
        ({}, "", ""),
        ({"user_id": "dana"}, "", "dana"),
        ({"user_id": json.dumps({"session_id": SESSION})}, SESSION, ""),
        ({"user_id": '{"no": "session"}'}, "", '{"no": "session"}'),
        ({"user_id": "{broken"}, "", "{broken"),
        ({"user_id": '{"session_id": 7}'}, "", '{"session_id": 7}'),
        ({"user_id": f"user_ab12_account__session_{SESSION}"}, SESSION, ""),
        ({"user_id": f"user_ab12_account_{SESSION[::-1]}_session_{SESSION}"}, SESSION, ""),
        ({"user_id": "user_session_x"}, "", "user_session_x"),
        ({"user_id": "dana", "run_id": "r1", "session_id": "s1"}, "r1", "dana"),
        ({"session_id": "s1"}, "s1", ""),
    ],
)
def test_the_run_and_the_user(metadata: object, run: str, user: str) -> None:
    request = parse(metadata=metadata)
    assert (request.run, request.user) == (run, user)


def test_a_user_id_nested_too_deeply_is_only_a_name() -> None:
    user_id = '{"session_id":' + "[" * 100_000
    read = parse(metadata={"user_id": user_id})
    assert (read.run, read.user) == ("", user_id)


def test_max_tokens_is_required_except_to_count() -> None:
    body = json.dumps({"model": "m", "messages": [HELLO]}).encode()
    error = refused(body)
    assert error.param == "max_tokens"
    assert "max_tokens is missing: add it" in error.message
    counted = COUNT_TOKENS.parse(body)
    assert (counted.max_output, counted.cap_fields) == (None, ())
    assert parse(max_tokens=0).max_output == 0


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"", None, "not valid JSON"),
        (b"[]", None, "not a JSON object"),
        (b"\xef\xbb\xbf{}", None, "byte order mark"),
        (b'{"model": "\xff"}', None, "not UTF-8"),
        (b'{"max_tokens": 1, "messages": []}', "model", "model is missing"),
        (b'{"model": "m", "max_tokens": 1}', "messages", "messages is missing"),
        (b'{"model": "m", "max_tokens": 1, "messages": []}', "messages", "messages is empty"),
        (b'{"model": "m", "max_tokens": 1, "messages": ["x"]}', "messages[0]", "not an object"),
        (b'{"model": "m", "max_tokens": -1, "messages": [{}]}', "max_tokens", "max_tokens is -1"),
        (b'{"model": "m", "max_tokens": "9", "messages": [{}]}', "max_tokens", "wrong type"),
        (b'{"model": "m", "model": "n", "max_tokens": 1, "messages": [{}]}', "model", "occurs twice"),
        (b'{"model": "m", "max_tokens": 1, "m\\u0061x_tokens": 9, "messages": [{}]}', "max_tokens", "twice"),
        (b'{"model": "\\ud800", "max_tokens": 1, "messages": [{}]}', None, "surrogate"),
        (b'{"model": ' + b"[" * 100_000, None, "nested too deeply"),
    ],
)
def test_what_is_refused_says_where_and_what_to_do(body: bytes, param: str | None, message: str) -> None:
    error = refused(body)
    assert error.param == param
    assert message in error.message


def test_only_the_model_and_the_cap_change() -> None:
    body = b'{ "model":"a" , "max_tokens": 100,"messages":[{"role":"user","content":"x"}], "top_k":1.50}'
    request = ANTHROPIC_MESSAGES.parse(body)
    edits = ANTHROPIC_MESSAGES.upstream_edits
    assert splice(body, edits(request, "a")) is body
    assert splice(body, edits(request, "a", ("max_tokens", 100), ask_usage=True)) is body
    assert splice(body, edits(request, "b/c", ("max_tokens", 7))) == body.replace(b'"a"', b'"b/c"').replace(
        b"100", b"7"
    )


def test_counting_has_no_cap() -> None:
    body = b'{"model":"a","messages":[{"role":"user","content":"x"}]}'
    request = COUNT_TOKENS.parse(body)
    assert splice(body, COUNT_TOKENS.upstream_edits(request, "b", ("max_tokens", 7))) == body.replace(
        b'"a"', b'"b"'
    )
    assert splice(body, ANTHROPIC_MESSAGES.upstream_edits(request, "a", ("max_tokens", 7))) == (
        body[:-1] + b',"max_tokens":7}'
    )
