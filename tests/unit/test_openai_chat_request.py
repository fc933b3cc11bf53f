"""OpenAI chat requests: what is read, what is refused and how, and what is sent on."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_chat.request import MAX_MESSAGES, ChatRequest, parse, upstream_body

MESSAGES = [{"role": "user", "content": "hi"}]


def request(**fields: object) -> ChatRequest:
    return parse(json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode())


def refused(body: bytes) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        parse(body)
    assert caught.value.kind is Kind.INVALID_REQUEST
    assert caught.value.status == 400
    assert not caught.value.retryable
    return caught.value


def test_the_least_request() -> None:
    body = b' {"model": "m", "messages": [ {"role":"user"} , {"role":"tool"}]}\n'
    read = parse(body)
    assert (read.body, read.model, read.stream, read.n) == (body, "m", False, 1)
    assert read.messages == (b'{"role":"user"}', b'{"role":"tool"}')
    assert tuple(body[a:b] for a, b in read.message_spans) == read.messages
    assert body[slice(*read.spans["model"])] == b'"m"'
    assert (read.max_output, read.cap_fields, read.tools, read.tool_names) == (None, (), b"", ())
    assert (read.user, read.run, read.include_usage, read.tool_forced) == ("", "", False, False)


def test_what_is_acted_on() -> None:
    tools = [
        {"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}},
        {"type": "custom", "custom": {"name": "patch"}},
        {"type": "web_search", "vendor": [1]},
    ]
    read = request(
        stream=True,
        n=3,
        max_tokens=50,
        stream_options={"include_usage": True},
        tools=tools,
        user="u",
        vendor={"x": 1},
    )
    assert (read.stream, read.n, read.max_output, read.cap_fields) == (True, 3, 50, ("max_tokens",))
    assert (read.include_usage, read.tool_names, read.user) == (True, ("read", "patch"), "u")
    assert json.loads(read.tools) == tools


def test_nulls_are_as_good_as_absent() -> None:
    names = (
        "stream",
        "n",
        "max_tokens",
        "stream_options",
        "tools",
        "tool_choice",
        "metadata",
        "user",
        "functions",
    )
    read = request(**dict.fromkeys(names))
    assert (read.stream, read.n, read.max_output, read.tools, read.user) == (False, 1, None, b"", "")


def test_the_lower_of_two_caps_counts() -> None:
    read = request(max_tokens=50, max_completion_tokens=20)
    assert (read.max_output, set(read.cap_fields)) == (20, {"max_tokens", "max_completion_tokens"})


def test_the_legacy_function_fields() -> None:
    read = request(functions=[{"name": "f"}], function_call={"name": "f"})
    assert (read.tool_names, read.legacy_functions, read.tool_forced) == (("f",), True, True)
    assert json.loads(read.tools) == [{"name": "f"}]


@pytest.mark.parametrize(
    ("choice", "forced"),
    [
        ("auto", False),
        ("none", False),
        ("required", True),
        ({"type": "function", "function": {"name": "f"}}, True),
        ({"type": "custom", "custom": {"name": "f"}}, True),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, False),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}, True),
        ({"type": "auto"}, False),
    ],
)
def test_a_forced_tool_choice(choice: object, forced: bool) -> None:
    assert request(tool_choice=choice).tool_forced is forced


@pytest.mark.parametrize(
    ("fields", "run", "user"),
    [
        ({"metadata": {"run_id": "r", "session_id": "s", "user_id": "u"}}, "r", "u"),
        ({"metadata": {"session_id": "s", "other": [1]}}, "s", ""),
        ({"metadata": {"user_id": '{"session_id": "s", "device_id": "d"}'}}, "s", ""),
        ({"metadata": {"user_id": '{"session_id": "s"}', "run_id": "r"}, "user": "u"}, "r", "u"),
        ({"metadata": {"user_id": '{"device_id": "d"}'}}, "", '{"device_id": "d"}'),
        ({"metadata": {"user_id": "{no json"}}, "", "{no json"),
        ({"metadata": {"user_id": "m"}, "user": "u"}, "", "u"),
    ],
)
def test_the_run_and_the_user(fields: dict[str, object], run: str, user: str) -> None:
    read = request(**fields)
    assert (read.run, read.user) == (run, user)


def test_a_user_id_nested_too_deeply_is_only_a_name() -> None:
    user_id = '{"session_id":' + "[" * 100_000
    read = request(metadata={"user_id": user_id})
    assert (read.run, read.user) == ("", user_id)


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        (b"", "not valid JSON", None),
        (b"{", "not valid JSON", None),
        (b'{"model":"m","messages":[{}],}', "byte", None),
        (b'{"model":"m","messages":[{}]} x', "trailing characters", None),
        (b'{"model":"m","messages":[{}],"x":NaN}', "not valid JSON", None),
        (b'\xef\xbb\xbf{"model":"m","messages":[{}]}', "byte order mark", None),
        (b'{"model":"m","messages":[{"content":"\\ud83d"}]}', "surrogate", None),
        (b'{"model":"m","messages":[{"content":"\xff"}]}', "not UTF-8 (byte 37)", None),
        (b"[1]", "not a JSON object", None),
        (b'{"messages":[{}]}', "model is missing", "model"),
        (b'{"model":7,"messages":[{}]}', "Expected `str`, got `int`", "model"),
        (b'{"model":"m"}', "messages is missing", "messages"),
        (b'{"model":"m","messages":[]}', "messages is empty", "messages"),
        (b'{"model":"m","messages":{}}', "Expected `array`", "messages"),
        (b'{"model":"m","messages":[{}, "x"]}', "messages[1] (byte 29) is not an object", "messages[1]"),
        (b'{"model":"m","messages":[{}],"stream":"yes"}', "Expected `bool | null`", "stream"),
        (b'{"model":"m","messages":[{}],"n":0}', "n is 0: send a number from 1", "n"),
        (b'{"model":"m","messages":[{}],"max_tokens":-1}', "max_tokens is -1", "max_tokens"),
        (b'{"model":"m","messages":[{}],"max_tokens":99999999999999999999}', "from 1 to", "max_tokens"),
        (b'{"model":"m","messages":[{}],"max_completion_tokens":0}', "is 0", "max_completion_tokens"),
        (
            b'{"model":"m","messages":[{}],"tools":[{"function":{}}]}',
            "name is missing",
            "tools[0].function.name",
        ),
        (
            b'{"model":"m","messages":[{}],"tools":[{"function":{"name":1}}]}',
            "Expected",
            "tools[0].function.name",
        ),
        (
            b'{"model":"m","messages":[{}],"stream_options":true}',
            "Expected `object | null`",
            "stream_options",
        ),
        (b'{"model":"m","messages":[{}],"metadata":{"run_id":5}}', "Expected", "metadata.run_id"),
        (b'{"model":"m","model":"n","messages":[{}]}', "'model' occurs twice", "model"),
        (b'{"model":"m","messages":[{}],"\\u006dodel":"m"}', "'model' occurs twice", "model"),
        (
            b'{"model":"m","messages":[{}],"stream_options":{"include_usage":true,"include_usage":false}}',
            "'stream_options.include_usage' occurs twice",
            "stream_options.include_usage",
        ),
        (
            b'{"model":"m","messages":[{}],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "nested too deeply",
            None,
        ),
    ],
)
def test_refusals_say_where_and_what_to_do(body: bytes, says: str, param: str | None) -> None:
    error = refused(body)
    assert says in error.message
    assert error.param == param


def test_too_many_messages() -> None:
    body = b'{"model":"m","messages":[%s]}' % b",".join([b"{}"] * (MAX_MESSAGES + 1))
    assert refused(body).param == "messages"


def test_nothing_to_change_is_the_same_object() -> None:
    read = request(stream=True, stream_options={"include_usage": True}, max_tokens=50)
    assert upstream_body(read, "m", None, False) is read.body
    assert upstream_body(read, "m", ("max_completion_tokens", 50), True) is read.body
    assert upstream_body(request(), "m", None, True) == request().body


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, {"max_completion_tokens": 9}),
        ({"max_tokens": 50}, {"max_tokens": 9}),
        ({"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 9}),
        ({"max_completion_tokens": None}, {"max_completion_tokens": 9}),
        ({"max_completion_tokens": 50, "max_tokens": 40}, {"max_completion_tokens": 9, "max_tokens": 9}),
    ],
)
def test_the_cap_goes_where_the_caller_put_it(fields: dict[str, object], sent: dict[str, object]) -> None:
    read = request(**fields)
    body = upstream_body(read, "m", ("max_completion_tokens", 9), False)
    assert json.loads(body) == {"model": "m", "messages": MESSAGES, **sent}


@pytest.mark.parametrize(
    "options",
    [
        None,
        {},
        {"include_usage": False},
        {"include_usage": None},
        {"include_obfuscation": False, "include_usage": False},
    ],
)
def test_asking_for_usage_keeps_other_stream_options(options: dict[str, object] | None) -> None:
    read = request(stream=True, stream_options=options, seed=1)
    sent = json.loads(upstream_body(read, "m", None, True))
    assert sent["stream_options"] == {**(options or {}), "include_usage": True}
    assert {**sent, "stream_options": options} == json.loads(read.body)


def test_asking_for_usage_where_there_are_no_stream_options() -> None:
    sent = json.loads(upstream_body(request(stream=True), "m", None, True))
    assert sent["stream_options"] == {"include_usage": True}


def test_every_other_byte_is_the_callers() -> None:
    body = (
        b'{ "vendor" : [1.0, 1e2] ,\n "\\u006dodel":"a" , '
        b'"messages":[{"role":"user", "content":"\\u00e9"}]  }\n'
    )
    sent = upstream_body(parse(body), 'b"ü', ("max_tokens", 5), False)
    assert sent == body.replace(b'"a"', '"b\\"ü"'.encode()).replace(b"}]", b'}],"max_tokens":5')


@given(
    st.dictionaries(st.text(max_size=5).map("x-{}".format), st.integers() | st.text(max_size=5), max_size=5),
    st.sampled_from([None, 5, 50]),
    st.sampled_from(["m", "other"]),
    st.booleans(),
    st.sampled_from([None, 1, 3]),
)
def test_the_body_sent_differs_in_what_was_asked_alone(
    extra: dict[str, object], cap: int | None, model: str, ask: bool, indent: int | None
) -> None:
    document: dict[str, object] = {**extra, "model": "m", "messages": MESSAGES, "stream": True}
    sent = upstream_body(
        parse(json.dumps(document, indent=indent).encode()), model, ("cap", cap) if cap else None, ask
    )
    expected = {**document, "model": model}
    if cap:
        expected["cap"] = cap
    if ask:
        expected["stream_options"] = {"include_usage": True}
    assert json.loads(sent) == expected
