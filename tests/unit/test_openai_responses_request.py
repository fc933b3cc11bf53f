"""OpenAI Responses: the request parsed, its errors, and what is changed on the way up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_responses import OPENAI_RESPONSES
from llm_proxy.wire.openai_responses.request import parse
from llm_proxy.wire.openai_responses.upstream import upstream_edits
from llm_proxy.wire.spans import splice

ITEM = {"role": "user", "content": "hi"}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "hi", **fields}).encode()


def refused(source: bytes) -> ProxyError:
    with pytest.raises(ProxyError) as raised:
        parse(source)
    assert raised.value.kind is Kind.INVALID_REQUEST
    assert raised.value.retryable is False
    return raised.value


def test_a_text_is_one_message_of_its_own_bytes() -> None:
    request = parse(source := body(input="Grüß\n", stream=True))
    assert request.messages == (b'"Gr\\u00fc\\u00df\\n"',)
    assert source[slice(*request.message_spans[0])] == request.messages[0]
    assert (request.messages_key, request.stream, request.include_usage, request.n) == (
        "input",
        True,
        True,
        1,
    )
    assert OPENAI_RESPONSES.message_facts(request.messages[0]).user_text == "Grüß\n"


def test_items_keep_their_own_bytes() -> None:
    source = b' {"input" : [ {"role":"user","content":"a"} ,{"type":"item_reference","id":"x"}],"model":"m"}'
    request = parse(source)
    assert request.messages == (
        b'{"role":"user","content":"a"}',
        b'{"type":"item_reference","id":"x"}',
    )
    assert [source[a:b] for a, b in request.message_spans] == list(request.messages)


@pytest.mark.parametrize(
    "stored", [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}, {"prompt": {"id": "pmpt_1"}}]
)
@pytest.mark.parametrize("given", [None, []])
def test_stored_input_needs_none_in_the_request(stored: dict[str, Any], given: object) -> None:
    request = parse(body(**stored, input=given))
    assert request.messages == ()
    assert request.previous == stored.get("previous_response_id", "")


@pytest.mark.parametrize(
    ("source", "param", "words"),
    [
        (body(input=None), "input", "missing or empty"),
        (body(input=[]), "input", "missing or empty"),
        (body(input=5), "input", "wrong type"),
        (body(input=[ITEM, "x"]), "input[1]", "not an object"),
        (b'{"input":"x"}', "model", "model is missing"),
        (body(model=None), "model", "wrong type"),
        (body(max_output_tokens=0), "max_output_tokens", "from 1 to"),
        (body(max_output_tokens="5"), "max_output_tokens", "wrong type"),
        (b'{"model":"m","input":"x","\\u0069nput":"y"}', "input", "occurs twice"),
        (b"[]", None, "send an object with model and input"),
        (b'{"model":"m","input":"x"', None, "not valid JSON"),
        (b'{"model":"m","input":"\xff"}', None, "not UTF-8"),
        (b"\xef\xbb\xbf{}", None, "byte order mark"),
        (b'{"model":"m","input":' + b"[" * 99_999, None, "nested too deeply"),
        (b'{"model":"m","input":"\\ud800"}', None, "surrogate"),
    ],
)
def test_what_is_wrong_is_named(source: bytes, param: str | None, words: str) -> None:
    error = refused(source)
    assert words in error.message
    assert error.param == param


TOOLS = [
    {"type": "function", "name": "read", "parameters": {}},
    {"type": "custom", "name": "apply_patch"},
    {"type": "namespace", "name": "crm", "description": "", "tools": [{"type": "function", "name": "get"}]},
    {"type": "web_search", "filters": {"allowed_domains": ["x"]}},
    {"type": "mcp", "server_label": "github", "allowed_tools": ["a"]},
]


def test_tools_are_named_one_by_one() -> None:
    request = parse(body(tools=TOOLS))
    assert request.tool_names == ("read", "apply_patch", "crm__get", "web_search", "mcp")
    assert json.loads(request.tools) == TOOLS
    assert parse(body(tools=[])).tools == b""


@pytest.mark.parametrize(
    ("choice", "forced"),
    [
        ("auto", False),
        ("none", False),
        ("required", True),
        ({"type": "function", "name": "read"}, True),
        ({"type": "web_search_preview"}, True),
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, False),
        ({"type": "allowed_tools", "mode": "required", "tools": []}, True),
        (None, False),
    ],
)
def test_a_forced_tool(choice: object, *, forced: bool) -> None:
    assert parse(body(tool_choice=choice)).tool_forced is forced


@pytest.mark.parametrize(
    ("fields", "run", "user"),
    [
        ({"user": "u"}, "", "u"),
        ({"safety_identifier": "s"}, "", "s"),
        ({"user": "u", "safety_identifier": "s"}, "", "u"),
        ({"metadata": {"run_id": "r", "session_id": "s", "user_id": "u"}}, "r", "u"),
        ({"metadata": {"session_id": "s"}}, "s", ""),
        ({"metadata": {"user_id": '{"session_id":"s"}'}}, "s", ""),
        ({"metadata": {"user_id": "{no"}}, "", "{no"),
        ({"client_metadata": {"session_id": "s", "x-codex-installation-id": "i"}}, "s", ""),
        ({"client_metadata": {"x-codex-turn-metadata": '{"session_id":"s","turn_id":"t"}'}}, "s", ""),
        ({"client_metadata": {"session_id": "s"}, "metadata": {"run_id": "r"}}, "r", ""),
        ({"client_metadata": [5]}, "", ""),
        ({"prompt_cache_key": "k"}, "", ""),
    ],
)
def test_run_and_user(fields: dict[str, Any], run: str, user: str) -> None:
    request = parse(body(**fields))
    assert (request.run, request.user) == (run, user)


def sent(source: bytes, model: str = "m", cap: tuple[str, int] | None = None) -> bytes:
    request = parse(source)
    return splice(request.body, upstream_edits(request, model, cap, ask_usage=True))


def test_nothing_to_change_is_the_same_object() -> None:
    source = body(max_output_tokens=5, stream=True)
    assert sent(source, cap=("max_output_tokens", 5)) is source


def test_model_and_cap_are_spliced() -> None:
    assert sent(body(), "up", ("max_output_tokens", 9)) == (
        b'{"model": "up", "input": "hi","max_output_tokens":9}'
    )
    capped = sent(body(max_output_tokens=50), cap=("max_output_tokens", 9))
    assert capped == b'{"model": "m", "input": "hi", "max_output_tokens": 9}'
    nulled = sent(body(max_output_tokens=None), cap=("max_output_tokens", 9))
    assert json.loads(nulled)["max_output_tokens"] == 9
    assert parse(body(max_output_tokens=50)).max_output == 50
