"""A large chat reply is read without its words, and in full wherever it might hold a call."""

from __future__ import annotations

import json

import pytest

from llm_proxy.chat.events import CallDelta, Text
from llm_proxy.wire.openai_chat.reply import read_body
from llm_proxy.wire.openai_chat.skim import skim_body

LONG = "word " * 20_000


def body(message: dict[str, object], **more: object) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    return json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": usage, **more}).encode()


def test_all_but_the_long_text_is_read_as_ever() -> None:
    data = body({"content": LONG, "reasoning_content": "hm", "refusal": None})
    skimmed = skim_body(data)
    assert skimmed is not None
    assert skimmed.raw is data
    full = read_body(data).events
    assert [type(event) for event in skimmed.events] == [type(event) for event in full]
    assert [e for e in skimmed.events if type(e) is not Text] == [e for e in full if type(e) is not Text]
    assert sum(len(e.text) for e in skimmed.events if type(e) is Text) < 10


def test_a_short_text_stays() -> None:
    skimmed = skim_body(body({"content": "short"}))
    assert skimmed is not None
    assert Text(0, "short") in skimmed.events


@pytest.mark.parametrize(
    "data",
    [
        body({"content": LONG, "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}),
        body({"content": LONG, "function_call": {"name": "f", "arguments": "{}"}}),
        body({"content": LONG}, tool_calls=[]),
        body({"content": LONG, "TOOLS": [{"id": "a", "function": {"name": "f"}}]}).replace(
            b"TOOLS", b"tool\\u005fcalls"
        ),
        b'{"choices":1}',
        b"{",
        b"[]",
        b"\xff",
        body({"content": LONG}).replace(b'"content"', b'"refusal": 5, "content"'),
    ],
    ids=["call", "function", "elsewhere", "escaped", "no list", "cut", "array", "not text", "not readable"],
)
def test_what_may_hold_a_call_or_is_odd_is_read_in_full(data: bytes) -> None:
    assert skim_body(data) is None


def test_the_escaped_call_is_one_that_the_full_reader_finds() -> None:
    call = [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]
    data = body({"content": LONG, "TOOLS": call}).replace(b"TOOLS", b"tool\\u005fcalls")
    assert any(isinstance(event, CallDelta) for event in read_body(data).events)
