"""One message of an Anthropic history: what it says, whatever its shape, and what in it is sealed."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.events import ANTHROPIC_FORMAT, RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.anthropic_messages.message import message_facts
from llm_proxy.wire.anthropic_messages.signed import signed
from llm_proxy.wire.request import Answered, Media, MediaKind, MessageFacts, Proposed
from llm_proxy.wire.seal import wrap
from llm_proxy.wire.spans import splice

CARRIED = ReasoningPart(
    kind=ReasoningKind.ENCRYPTED, text="gAAA", id="rs_1", format=RESPONSES_FORMAT, signature=""
)


def facts(role: str, *blocks: object) -> MessageFacts:
    return message_facts(json.dumps({"role": role, "content": list(blocks)}).encode())


def text(words: str) -> dict[str, object]:
    return {"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize("content", ["Refund order 7", [text("Refund order 7")]])
def test_a_users_text(content: object) -> None:
    read = message_facts(json.dumps({"role": "user", "content": content}).encode())
    assert read == MessageFacts(role="user", texts=("Refund order 7",), user_text="Refund order 7")


def test_media_and_documents() -> None:
    def document(**source: object) -> dict[str, object]:
        return {"type": "document", "source": source}

    read = facts(
        "user",
        text("What is"),
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        document(type="base64", media_type="application/pdf", data="BBBBBB"),
        document(type="file", file_id="file_1"),
        {
            **document(type="text", media_type="text/plain", data="plain words"),
            "title": "T",
            "context": "C",
        },
        document(type="content", content=[text("in blocks"), {"type": "image", "source": {"type": "url"}}]),
        document(type="content", content="in a string"),
        {
            "type": "search_result",
            "source": "https://x.example",
            "title": "Found",
            "content": [text("a hit")],
        },
        {"type": "container_upload", "file_id": "file_2"},
        text("this?"),
    )
    assert read.user_text == "What is\nthis?"
    assert read.texts == (
        "What is",
        "T",
        "C",
        "plain words",
        "in blocks",
        "in a string",
        "Found",
        "https://x.example",
        "a hit",
        "this?",
    )
    assert read.images == (
        Media(size=4),
        Media(),
        Media(size=6, kind=MediaKind.FILE),
        Media(kind=MediaKind.FILE),
        Media(),
        Media(kind=MediaKind.UPLOAD),
    )


def test_an_assistants_turn() -> None:
    raw = (
        b'{"role":"assistant","content":[{"type":"thinking","thinking":"Hm.","signature":"S=="},'
        b'{"type":"redacted_thinking","data":"R=="},{"type":"text","text":"Sure."},'
        b'{"type":"tool_use","id":"toolu_1","name":"read","input":{ "n" : 1.0 }},'
        b'{"type":"tool_use","id":"toolu_2","name":"key","toolset_name":"computer","input":{}},'
        b'{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"x"}},'
        b'{"type":"mcp_tool_use","id":"mcptoolu_1","name":"echo","server_name":"s","input":{}},'
        b'{"type":"compaction","content":"So far."}]}'
    )
    read = message_facts(raw)
    assert read.proposed == (
        Proposed("toolu_1", "read", '{ "n" : 1.0 }'),
        Proposed("toolu_2", "computer.key", "{}"),
    )
    assert read.reasoning == (
        ReasoningPart(kind=ReasoningKind.RAW, text="Hm.", signature="S==", format=ANTHROPIC_FORMAT),
        ReasoningPart(kind=ReasoningKind.REDACTED, text="R==", format=ANTHROPIC_FORMAT),
    )
    assert read.texts == (
        *("Hm.", "Sure.", "read", '{ "n" : 1.0 }', "computer.key", "{}"),
        *("web_search", '{"query":"x"}', "echo", "{}", "So far."),
    )
    assert (read.user_text, read.results) == ("", ())


def test_several_results_in_one_message() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
    read = facts(
        "user",
        {"type": "tool_result", "tool_use_id": "t1", "content": "done"},
        {"type": "tool_result", "tool_use_id": "t2", "content": [text("a"), image, text("b")]},
        {"type": "tool_result", "tool_use_id": "t3", "is_error": True},
        text("Go on"),
    )
    assert read.results == (Answered("t1", "done"), Answered("t2", "a\nb"), Answered("t3", ""))
    assert read.texts == ("done", "a", "b", "Go on")
    assert read.images == (Media(size=4),)
    assert read.user_text == "Go on"


def test_what_the_provider_found_is_counted() -> None:
    hit = {"type": "web_search_result", "title": "Shannon", "encrypted_content": "Eqg"}
    read = facts(
        "assistant",
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [hit]},
        {"type": "mcp_tool_result", "tool_use_id": "m1", "content": [text("hi")]},
    )
    assert json.loads(read.texts[0]) == hit
    assert read.texts[1:] == ("hi",)
    assert read.results == ()


def test_carried_reasoning_is_what_it_was() -> None:
    thinking = {"type": "thinking", "thinking": "", "signature": wrap(CARRIED)}
    redacted = {"type": "redacted_thinking", "data": wrap(CARRIED)}
    assert facts("assistant", thinking, redacted).reasoning == (CARRIED, CARRIED)


def test_a_key_that_occurs_twice_is_refused() -> None:
    raw = b'{"role":"user","content":[{"type":"text","text":"a","te\\u0078t":"b"}]}'
    with pytest.raises(ProxyError) as caught:
        message_facts(raw)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID_REQUEST, "messages")


def test_no_depth_of_content_breaks_the_reader() -> None:
    content: object = "deep"
    for _ in range(150):
        content = [{"type": "tool_result", "tool_use_id": "t", "content": content}]
    read = message_facts(json.dumps({"role": "user", "content": content}).encode())
    assert "deep" in read.texts[0]


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "content", "text", "source", "input", "data"]), inner)
    ),
    max_leaves=8,
)
TYPES = st.sampled_from(
    ["text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking", "x", 7]
)


@given(
    st.dictionaries(st.sampled_from(["role", "content"]), ODD), st.lists(st.tuples(TYPES, ODD), max_size=3)
)
def test_anything_else_is_read_somehow(
    message: dict[str, object], blocks: list[tuple[object, object]]
) -> None:
    message_facts(json.dumps(message).encode())
    odd = [{"type": type_, "source": value, "content": value, "input": value} for type_, value in blocks]
    facts("user", *odd)
    signed(json.dumps({"role": "assistant", "content": odd}).encode())


THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "S=="}
REDACTED = {"type": "redacted_thinking", "data": "R=="}
UNSIGNED = {"type": "thinking", "thinking": "Hm.", "signature": ""}
CALL = {"type": "tool_use", "id": "t", "name": "read", "input": {"signature": "no", "data": "no"}}


@pytest.mark.parametrize("spaced", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        [THINKING, CALL],
        [CALL, THINKING],
        [THINKING, REDACTED, text("a"), THINKING, REDACTED],
        [UNSIGNED, THINKING, THINKING],
        [THINKING, THINKING, text("a"), CALL],
    ],
)
def test_any_of_the_sealed_blocks_can_go(content: list[dict[str, object]], *, spaced: bool) -> None:
    separators = (" ,\n ", " : ") if spaced else (",", ":")
    raw = json.dumps({"role": "assistant", "content": content}, separators=separators).encode()
    places = [n for n, block in enumerate(content) if block in (THINKING, REDACTED)]
    found = signed(raw)
    assert [one.seal for one in found] == [content[n].get("signature") or content[n]["data"] for n in places]
    for gone in itertools.chain.from_iterable(
        itertools.combinations(range(len(found)), size) for size in range(len(found) + 1)
    ):
        left = json.loads(splice(raw, [(*found[n].span, b"") for n in gone]))
        assert left["content"] == [b for n, b in enumerate(content) if n not in {places[g] for g in gone}]


def test_a_message_of_seals_alone_goes_whole() -> None:
    raw = json.dumps({"role": "assistant", "content": [THINKING, REDACTED]}).encode()
    assert [one.span for one in signed(raw)] == [(0, len(raw))] * 2


def test_a_carried_seal_is_its_own_vendors() -> None:
    thinking = {**THINKING, "signature": wrap(CARRIED)}
    raw = json.dumps({"role": "assistant", "content": [thinking, CALL]}).encode()
    assert [one.seal for one in signed(raw)] == ["gAAA"]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"role":"user","content":[{"type":"thinking","signature":"S"}]}',
        b'{"role":"assistant","content":"signature"}',
        b'{"content":[{"type":"thinking","signature":"S"}]}',
        b'{"role":"assistant","content":[{"type":"thinking","signature":7}, 3]}',
        b'{"role":"assistant","role":"assistant","content":[{"type":"thinking","signature":"S"}]}',
        b"[]",
    ],
)
def test_other_messages_hold_no_seal(raw: bytes) -> None:
    assert signed(raw) == ()
