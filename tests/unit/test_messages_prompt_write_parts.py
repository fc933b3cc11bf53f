"""Calls, results and media of a prompt as blocks of an Anthropic Messages request."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from llm_proxy.chat.prompt import CallPart, FilePart, ImagePart, Part, Prompt, ResultPart
from llm_proxy.wire.anthropic_messages.prompt_write import write_prompt
from tests.unit.messages_writing import ADAPTIVE, ASK, EPHEMERAL, assistant, content, text, user, write


def block(part: Part) -> Any:
    return content(user(part))[0][1][0]


@pytest.mark.parametrize(
    ("arguments", "custom", "written"),
    [
        ('{"a": [1, 2.0]}', False, {"a": [1, 2.0]}),
        ("", False, {}),
        (" ", False, {}),
        ("[1]", False, {"input": [1]}),
        ('"x"', False, {"input": "x"}),
        ("null", False, {"input": None}),
        ('{"a": ', False, {"input": '{"a": '}),
        ("plain\n", False, {"input": "plain\n"}),
        ('{"a": 1}', True, {"input": '{"a": 1}'}),
        ("*** Begin Patch", True, {"input": "*** Begin Patch"}),
    ],
)
def test_a_calls_input_is_an_object(arguments: str, custom: bool, written: object) -> None:
    call = CallPart(id="c1", name="f", arguments=arguments, custom=custom, cache=True)
    blocks = content(user(text("go")), assistant(call))[1][1]
    assert blocks == [
        {"type": "tool_use", "id": "c1", "name": "f", "input": written, "cache_control": EPHEMERAL}
    ]


def test_arguments_go_as_they_are_written() -> None:
    call = CallPart(id="c1", name="f", arguments='{"n": 1.0, "é": 1e3}')
    body = write_prompt(Prompt(model=ADAPTIVE, messages=(ASK, assistant(call)))).body
    assert '"input":{"n": 1.0, "é": 1e3}'.encode() in body


def test_calls_and_results_meet_by_ids_that_fit() -> None:
    odd = "call.with/odd chars" + "x" * 80
    turns = content(
        user(text("go")),
        assistant(CallPart(id=odd, name="f", arguments="{}")),
        user(ResultPart(call_id=odd)),
    )
    id_ = turns[1][1][0]["id"]
    assert len(id_) <= 64
    assert turns[2][1] == [{"type": "tool_result", "tool_use_id": id_}]


PNG = base64.b64encode(b"\x89PNG").decode()


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (
            ImagePart(data=PNG, media_type="image/jpg", cache=True),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/jpeg", "data": PNG},
                "cache_control": EPHEMERAL,
            },
        ),
        (
            ImagePart(url=f"data:image/webp;base64,{PNG}"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": PNG}},
        ),
        (
            ImagePart(url="https://x.example/a.png", detail="auto"),
            {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
        ),
        (ImagePart(file_id="f1"), {"type": "image", "source": {"type": "file", "file_id": "f1"}}),
        (
            FilePart(data="JVBE", name="q.pdf"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
                "title": "q.pdf",
            },
        ),
        (
            FilePart(data="data:text/plain,one%20two"),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "one two"}},
        ),
        (
            FilePart(data=PNG, media_type="image/png"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ),
        (
            FilePart(text="words"),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
        ),
        (
            FilePart(url="https://x.example/a.pdf"),
            {"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}},
        ),
        (FilePart(file_id="f1"), {"type": "document", "source": {"type": "file", "file_id": "f1"}}),
        (
            ResultPart(call_id="c", parts=(text("a"),), is_error=True, cache=True),
            {
                "type": "tool_result",
                "tool_use_id": "c",
                "content": "a",
                "is_error": True,
                "cache_control": EPHEMERAL,
            },
        ),
        (
            ResultPart(call_id="c", parts=(text("a"), text(""), ImagePart(file_id="f"))),
            {
                "type": "tool_result",
                "tool_use_id": "c",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image", "source": {"type": "file", "file_id": "f"}},
                ],
            },
        ),
    ],
)
def test_media_and_results(part: Part, written: object) -> None:
    assert block(part) == written


def test_the_detail_of_an_image_is_a_hint() -> None:
    assert write(user(ImagePart(file_id="f", detail="low")))[1] == ("detail",)
