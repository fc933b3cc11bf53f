"""The messages of an Anthropic Messages request as parts of a prompt."""

from __future__ import annotations

import pytest

from llm_proxy.chat.events import ANTHROPIC_FORMAT, GEMINI_FORMAT, RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import CallPart, FilePart, ImagePart, ResultPart, Role, TextPart, ThoughtPart
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire import seal
from tests.unit.messages_reading import CACHE, read


def parts(role: str, *blocks: object) -> tuple[object, ...]:
    return read(messages=[{"role": role, "content": list(blocks)}]).messages[0].parts


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
