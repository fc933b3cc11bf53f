"""One message of a chat history: what it says, whatever its shape."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.events import ReasoningKind
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_chat.message import message_facts, signed
from llm_proxy.wire.request import Media, MediaKind, MessageFacts
from llm_proxy.wire.spans import splice


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
            ("think",),
        ),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "think"}]}]}, ("think",)),
    ],
)
def test_reasoning_sent_back_counts_once(fields: dict[str, object], texts: tuple[str, ...]) -> None:
    assert facts(role="assistant", **fields).texts == texts


CLAUDE = "anthropic-claude-v1"


def part(kind: str, text: str = "", signature: str = "", id_: str = "", format_: str = "") -> ReasoningPart:
    return ReasoningPart(kind=ReasoningKind(kind), text=text, signature=signature, id=id_, format=format_)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"reasoning_content": "a", "reasoning": "a"}, [part("raw", "a")]),
        ({"reasoning": "a"}, [part("raw", "a")]),
        (
            {
                "reasoning": "ab",
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "a", "format": CLAUDE, "index": 0},
                    {"type": "reasoning.text", "text": "b", "format": CLAUDE, "index": 0},
                    {"type": "reasoning.text", "signature": "s", "format": CLAUDE, "index": 0},
                    {"type": "reasoning.text", "text": "c", "signature": "t", "index": 0},
                    {"type": "reasoning.encrypted", "data": "r", "format": CLAUDE, "index": 1},
                    {"type": "reasoning.encrypted", "data": "q", "format": CLAUDE, "index": 1},
                ],
            },
            [
                part("raw", "ab", "s", "", CLAUDE),
                part("raw", "c", "t"),
                part("redacted", "r", format_=CLAUDE),
                part("redacted", "q", format_=CLAUDE),
            ],
        ),
        (
            {
                "reasoning_details": [
                    {"type": "reasoning.summary", "summary": "a", "id": "rs_1", "index": 0},
                    {"type": "reasoning.encrypted", "data": "e", "id": "rs_1", "index": 0},
                    {"type": "reasoning.summary", "summary": "b", "id": "rs_2", "index": 0},
                    {"type": "reasoning.text", "text": "c"},
                    {"type": "reasoning.text", "text": "d"},
                ]
            },
            [
                part("summary", "a", id_="rs_1"),
                part("encrypted", "e", id_="rs_1"),
                part("summary", "b", id_="rs_2"),
                part("raw", "c"),
                part("raw", "d"),
            ],
        ),
        (
            {
                "reasoning_content": "a",
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "a", "signature": "s"},
                    {"type": "redacted_thinking", "data": "r"},
                ],
            },
            [part("raw", "a", "s", "", CLAUDE), part("redacted", "r", format_=CLAUDE)],
        ),
        (
            {"reasoning_content": "a", "encrypted_content": "x"},
            [part("raw", "a"), part("encrypted", "x", format_="xai-chat-v1")],
        ),
        (
            {"extra_content": {"google": {"thought_signature": "g"}}},
            [part("raw", signature="g", format_="google-gemini-v1")],
        ),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "m"}]}]},
            [part("raw", "m")],
        ),
        ({"content": "<think>\nhm\n</think>\n\nSo."}, [part("inline_tag", "hm")]),
        ({"content": "hm\n</think>\n\nSo.", "name": "x"}, [part("inline_tag", "hm")]),
        ({"content": "In HTML, a > b"}, []),
        ({"reasoning": 5, "reasoning_details": "x", "thinking_blocks": [5], "encrypted_content": []}, []),
    ],
)
def test_reasoning_sent_back(fields: dict[str, object], parts: list[ReasoningPart]) -> None:
    assert list(facts(role="assistant", **fields).reasoning) == parts


def entry(seal: str | None, **more: object) -> dict[str, object]:
    return {"type": "reasoning.text", "text": "a, b", **({"signature": seal} if seal else {}), **more}


@pytest.mark.parametrize("field", ["reasoning_details", "thinking_blocks"])
@pytest.mark.parametrize("separators", [(",", ":"), (" ,\n ", " : ")])
@pytest.mark.parametrize(
    "pattern", ["s", "-", "s-", "-s", "ss", "ss-", "-ss", "s-s", "--", "s-ss-s", "sss", ""]
)
def test_sealed_entries_can_be_cut_out(pattern: str, separators: tuple[str, str], field: str) -> None:
    entries = [entry(f"seal{i}" if mark == "s" else None, n=i) for i, mark in enumerate(pattern)]
    message = {"role": "assistant", field: entries, "content": "x"}
    raw = json.dumps(message, separators=separators).encode()
    found = signed(raw)
    assert [one.seal for one in found] == [e["signature"] for e in entries if "signature" in e]
    left = json.loads(splice(raw, [(*span, b"") for span in {one.span for one in found}]))
    assert left == {**message, field: [e for e in entries if "signature" not in e]}


def test_encrypted_entries_are_sealed_too() -> None:
    (one,) = signed(b'{"role":"assistant","reasoning_details":[{"type":"reasoning.encrypted","data":"gA"}]}')
    assert one.seal == "gA"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"role":"user","content":"reasoning_details"}',
        b'{"reasoning_details":5}',
        b'{"reasoning_details":null}',
        b'{"reasoning_details":[5,{"data":5}]}',
        b'["reasoning_details"]',
        b'{"reasoning_details":[],"reasoning_details":[]}',
    ],
)
def test_nothing_odd_is_sealed(raw: bytes) -> None:
    assert signed(raw) == ()


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
    "thinking_blocks",
    "extra_content",
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
