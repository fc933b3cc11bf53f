"""One message of a chat history: what it says, whatever its shape."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_chat.message import message_facts
from llm_proxy.wire.request import Media, MediaKind, MessageFacts


def facts(**message: object) -> MessageFacts:
    return message_facts(json.dumps(message).encode())


def test_a_users_text() -> None:
    read = facts(role="user", content="Refund order 7", name="dana")
    assert read == MessageFacts(role="user", texts=("dana", "Refund order 7"), user_text="Refund order 7")


def test_parts() -> None:
    read = facts(
        role="user",
        content=[
            {"type": "text", "text": "What is"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            {"type": "image_url", "image_url": "https://example.com/b.png"},
            {"type": "input_audio", "input_audio": {"data": "BBBBBB", "format": "wav"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,CC", "filename": "a.pdf"}},
            {"type": "file", "file": {"file_id": "file-1"}},
            {"type": "text", "text": "this?"},
        ],
    )
    assert read.texts == ("What is", "this?")
    assert read.user_text == "What is\nthis?"
    assert read.images == (
        Media(detail="low", size=4),
        Media(),
        Media(),
        Media(size=6, kind=MediaKind.AUDIO),
        Media(size=2, kind=MediaKind.FILE),
        Media(kind=MediaKind.FILE),
    )


def test_an_assistants_calls() -> None:
    read = facts(
        role="assistant",
        content=None,
        refusal="No.",
        tool_calls=[
            {"id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"p":1}'}},
            {"id": "c2", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}},
        ],
        function_call={"name": "old", "arguments": "{}"},
    )
    assert read.proposed == (("c1", "read", '{"p":1}'), ("c2", "patch", "*** Begin"), ("", "old", "{}"))
    assert read.texts == ("No.", "read", '{"p":1}', "patch", "*** Begin", "old", "{}")
    assert read.user_text == ""


def test_a_tools_result() -> None:
    read = facts(
        role="tool", tool_call_id="c1", content=[{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]
    )
    assert read.results == (("c1", "4\n2"),)
    legacy = facts(role="function", name="lookup", content="42")
    assert legacy.results == (("lookup", "42"),)


def test_an_odd_result_is_still_a_result() -> None:
    read = facts(role="tool", tool_call_id=5, content={"rows": [1]})
    assert read.results == (("5", '{"rows": [1]}'),)


def test_escapes_hide_no_role() -> None:
    read = message_facts(b'{"r\\u006fle":"t\\u006fol","tool_call_id":"c1","content":"x"}')
    assert (read.role, read.results[0].id) == ("tool", "c1")


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"reasoning_content": "think"}, ("think",)),
        ({"reasoning": "think", "reasoning_content": "think"}, ("think",)),
        (
            {"reasoning": "think", "reasoning_details": [{"type": "reasoning.text", "text": "think"}]},
            ("think",),
        ),
        (
            {"reasoning": "think", "reasoning_details": [{"type": "reasoning.encrypted", "data": "gA"}]},
            ("think", "gA"),
        ),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "think"}]}]}, ("think",)),
    ],
)
def test_reasoning_sent_back_counts_once(fields: dict[str, object], texts: tuple[str, ...]) -> None:
    assert facts(role="assistant", **fields).texts == texts


def test_reasoning_is_not_what_was_said() -> None:
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "x"}]
    assert facts(role="user", content=content).user_text == "x"


@pytest.mark.parametrize(
    "content",
    [5, {"a": 1}, [5], [{"type": "hologram", "x": "y"}], [{"type": "text", "text": {"a": 1}}], [[1]], [None]],
)
def test_unknown_content_counts_as_its_own_text(content: object) -> None:
    read = facts(role="user", content=content)
    assert "".join(read.texts) in json.dumps(content)
    assert read.texts or content == [None]


@pytest.mark.parametrize(
    "message",
    [
        b'{"role":"user","role":"tool","content":"x"}',
        b'{"role":"tool","tool_call_id":"a","tool_call_\\u0069d":"b"}',
        b'{"role":"assistant","tool_calls":[{"function":{"name":"a","name":"b"}}]}',
        b'{"role":"user","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_a_message_with_two_readings_is_refused(message: bytes) -> None:
    with pytest.raises(ProxyError) as caught:
        message_facts(message)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID_REQUEST, "messages")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "text", "function", "name", "arguments", "image_url", "file", "thinking"]
            ),
            inner | st.sampled_from(["text", "image_url", "thinking", "file", "refusal"]),
            max_size=4,
        )
    ),
    max_leaves=10,
)
KEYS = [
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "reasoning",
    "reasoning_details",
    "function_call",
    "refusal",
]


@given(
    st.dictionaries(st.sampled_from(KEYS), ANYTHING),
    st.sampled_from(["user", "assistant", "tool", "function", 5]),
)
def test_no_valid_json_makes_it_fail(message: dict[str, object], role: object) -> None:
    read = facts(role=role, **message)
    assert read.role == (role if isinstance(role, str) else "")
    assert all(read.texts)
