"""OpenAI chat replies: what odd, broken and ambiguous chunks mean."""

from __future__ import annotations

import json

import pytest

from llm_proxy.chat.events import (
    CallDelta,
    Ended,
    Event,
    Failed,
    Finished,
    Reasoning,
    ReasoningKind,
    Refusal,
    Started,
    Text,
    Unreadable,
    Usage,
    UsageSeen,
)
from llm_proxy.wire.openai_chat.reasoning import XAI_FORMAT
from llm_proxy.wire.openai_chat.reply import read_body, read_frame
from llm_proxy.wire.sse import SseFrame, SseReader, read_one, render

CLAUDE = "anthropic-claude-v1"


def chunk(data: bytes, event: str = "") -> tuple[Event, ...]:
    frame = read_one(render(data, event))
    read = read_frame(frame)
    assert read.raw is frame.raw
    return read.events


def delta(**fields: object) -> tuple[Event, ...]:
    return chunk(json.dumps({"id": "c", "model": "m", "choices": [{"index": 0, "delta": fields}]}).encode())


def usage(**fields: object) -> Usage:
    (_, seen) = chunk(json.dumps({"choices": [], "usage": fields}).encode())
    assert isinstance(seen, UsageSeen)
    return seen.usage


def test_plain_text() -> None:
    assert delta(content="hi") == (Text(0, "hi"),)
    assert delta(content="hi", tool_calls=[], function_call=None) == (Text(0, "hi"),)
    assert delta(content="") == ()
    assert delta(role="assistant", content="hi") == (Started("c", "m"), Text(0, "hi"))
    assert delta(content='say "tool_calls":[{') == (Text(0, 'say "tool_calls":[{'),)


def test_several_choices_in_one_chunk() -> None:
    choices = [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {}, "finish_reason": "length"}]
    events = chunk(json.dumps({"id": 7, "choices": choices}).encode())
    assert events == (Started("7", ""), Text(1, "b"), Finished(0, "length"))


@pytest.mark.parametrize(
    ("reason", "named"),
    [
        ("tool_calls", "tool_call"),
        ("function_call", "tool_call"),
        ("stop", "stop"),
        ("vendor_word", "vendor_word"),
    ],
)
def test_finish_reasons(reason: str, named: str) -> None:
    data = json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}).encode()
    assert Finished(0, named) in chunk(data)


@pytest.mark.parametrize(
    ("fields", "events"),
    [
        ({"reasoning_content": "a"}, [Reasoning(0, "a")]),
        ({"reasoning": "a"}, [Reasoning(0, "a")]),
        ({"reasoning": "a", "reasoning_content": "a", "content": "b"}, [Reasoning(0, "a"), Text(0, "b")]),
        (
            {"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a"}]},
            [Reasoning(0, "a")],
        ),
        (
            {"reasoning_details": [{"type": "reasoning.summary", "summary": "s"}, {"data": "x"}]},
            [Reasoning(0, "s", ReasoningKind.SUMMARY), Reasoning(0, "x", ReasoningKind.ENCRYPTED, 1)],
        ),
        (
            {"reasoning_content": "a", "encrypted_content": "x"},
            [Reasoning(0, "a"), Reasoning(0, "x", ReasoningKind.ENCRYPTED, format=XAI_FORMAT)],
        ),
        ({"content": [{"type": "thinking", "thinking": "a"}]}, [Reasoning(0, "a")]),
        ({"content": [{"type": "refusal", "refusal": "no"}, {"type": "audio", "x": 1}]}, [Refusal(0, "no")]),
        ({"refusal": "no"}, [Refusal(0, "no")]),
        (
            {
                "reasoning": "a",
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "a", "signature": "s1", "format": CLAUDE, "index": 0},
                    {"type": "reasoning.text", "signature": "s2", "format": CLAUDE, "index": 1},
                    {"type": "reasoning.encrypted", "data": "r", "format": CLAUDE, "id": None, "index": 2},
                    {"type": "reasoning.encrypted", "data": "e", "id": "rs_1", "index": 3},
                    {"type": "reasoning.server_tool_call", "index": 4},
                ],
            },
            [
                Reasoning(0, "a", ReasoningKind.RAW, 0, "s1", "", CLAUDE),
                Reasoning(0, "", ReasoningKind.RAW, 1, "s2", "", CLAUDE),
                Reasoning(0, "r", ReasoningKind.REDACTED, 2, "", "", CLAUDE),
                Reasoning(0, "e", ReasoningKind.ENCRYPTED, 3, "", "rs_1"),
            ],
        ),
        (
            {
                "reasoning": "a",
                "reasoning_details": [{"type": "reasoning.encrypted", "data": "e", "index": 0}],
            },
            [Reasoning(0, "e", ReasoningKind.ENCRYPTED), Reasoning(0, "a")],
        ),
        (
            {
                "reasoning_content": "a",
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "a", "signature": "s"},
                    {"type": "redacted_thinking", "data": "r"},
                ],
            },
            [
                Reasoning(0, "a", ReasoningKind.RAW, 0, "s", "", CLAUDE),
                Reasoning(0, "r", ReasoningKind.REDACTED, 1, "", "", CLAUDE),
            ],
        ),
        (
            {"content": "b", "extra_content": {"google": {"thought_signature": "g"}}},
            [Reasoning(0, "", signature="g", format="google-gemini-v1"), Text(0, "b")],
        ),
        ({"content": "b", "extra_content": {"google": {"thought": True}}}, [Text(0, "b")]),
        ({"content": "b", "extra_content": ["of another server"]}, [Text(0, "b")]),
        ({"content": "b", "extra_content": None, "thinking_blocks": None}, [Text(0, "b")]),
    ],
)
def test_reasoning_and_refusal(fields: dict[str, object], events: list[Event]) -> None:
    assert list(delta(**fields)) == events


def test_call_deltas() -> None:
    function = {"index": 2, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    custom = {"index": 3, "id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}}
    assert delta(tool_calls=[function, custom]) == (
        CallDelta(0, 2, "c", "f", "{"),
        CallDelta(0, 3, "d", "g", "x", custom=True),
    )
    assert delta(tool_calls=[{"index": 2, "function": {"name": None, "arguments": "}"}}]) == (
        CallDelta(0, 2, "", "", "}"),
    )
    assert delta(function_call={"name": "f"}) == (CallDelta(0, -1, "", "f", ""),)


def test_a_call_keeps_its_thought_signature() -> None:
    call = {
        "id": "c",
        "index": 0,
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": {"google": {"thought_signature": "Cv"}},
    }
    assert delta(tool_calls=[call]) == (CallDelta(0, 0, "c", "f", "{}", signature="Cv"),)
    assert delta(tool_calls=[{**call, "extra_content": 5}]) == (CallDelta(0, 0, "c", "f", "{}"),)


def test_calls_without_an_index_are_told_apart_by_id() -> None:
    (a,) = delta(tool_calls=[{"id": "a", "function": {"name": "f"}}])
    (b,) = delta(tool_calls=[{"id": "b", "function": {"name": "f"}}])
    assert isinstance(a, CallDelta)
    assert isinstance(b, CallDelta)
    assert a.index != b.index
    first, second = delta(tool_calls=[{"function": {"name": "f"}}, {"function": {"name": "g"}}])
    assert (first, second) == (CallDelta(0, 0, "", "f", ""), CallDelta(0, 1, "", "g", ""))


def test_usage() -> None:
    assert usage(prompt_tokens=0, completion_tokens=0, total_tokens=0) == Usage()
    assert usage(prompt_tokens=5, completion_tokens=None, prompt_tokens_details=None) == Usage(input=5)
    assert usage(prompt_tokens=5, prompt_cache_hit_tokens=3) == Usage(input=5, cached=3)
    assert (
        usage(prompt_tokens=5, prompt_tokens_details={"cached_tokens": 0}, prompt_cache_hit_tokens=3).cached
        == 0
    )
    assert usage(prompt_tokens=-5, completion_tokens=-1) == Usage()
    apart = usage(
        prompt_tokens=32,
        completion_tokens=9,
        total_tokens=135,
        completion_tokens_details={"reasoning_tokens": 94},
    )
    assert apart == Usage(input=32, output=103, reasoning=94)


def test_usage_that_is_null_is_missing() -> None:
    assert chunk(b'{"choices":[],"usage":null}') == ()


def test_usage_stands_alone_only_where_nothing_else_is_said() -> None:
    events = chunk(b'{"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":1}}')
    assert events[-1] == UsageSeen(Usage(input=1), only=False)
    assert chunk(b'{"usage":{"prompt_tokens":1}}')[-1] == UsageSeen(Usage(input=1), only=True)


def test_end_markers_and_comments() -> None:
    assert chunk(b"[DONE]") == (Ended(),)
    assert chunk(b" [DONE] ") == (Ended(),)
    assert read_frame(read_one(b": keep-alive\n\n")).events == ()
    assert chunk(b"") == ()


def test_an_end_marker_without_its_blank_line_still_ends() -> None:
    reader = SseReader()
    reader.feed(b"data: [DONE]\n")
    assert [read_frame(frame).events for frame in reader.close()] == [(Ended(),)]


def test_a_cut_frame_is_unreadable() -> None:
    (event,) = read_frame(SseFrame(b'data: {"choices":[]}', "", b'{"choices":[]}', True)).events
    assert isinstance(event, Unreadable)


@pytest.mark.parametrize(
    ("data", "failed"),
    [
        (b'{"error":{"message":"boom","code":429,"type":"x"}}', Failed("boom", "429")),
        (b'{"error":{"message":"boom","code":null,"type":"server_error"}}', Failed("boom", "server_error")),
        (b'{"error":"boom"}', Failed("boom")),
        (b'{"error":[1]}', Failed("The upstream reported an error of unknown shape")),
        (b'{"object":"error","message":"boom","type":"BadRequestError","code":400}', Failed("boom", "400")),
    ],
)
def test_errors_in_band(data: bytes, failed: Failed) -> None:
    assert chunk(data) == (failed,)
    assert read_body(data).events == (failed,)
    assert chunk(data, "error")[0].__class__ is Failed


@pytest.mark.parametrize("empty", [b"null", b"{}", b'""'])
def test_an_empty_error_is_none(empty: bytes) -> None:
    assert chunk(b'{"choices":[{"index":0,"delta":{"content":"x"}}],"error":%b}' % empty) == (Text(0, "x"),)


def test_an_error_event_of_any_shape_fails() -> None:
    assert chunk(b"upstream went away", "error") == (Failed("The upstream reported an error"),)


CALL = b'{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}}'


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":',
        b"not json",
        b"[1]",
        b'{"choices":[{"index":0,"delta":{"content":"\xff"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":5}}]}',
        b'{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":{}}}]}}]}',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"choices":[{"index":0,"delta":{"tool_calls":[%b]},"delta":{"content":"x"}}]}' % CALL,
        b'{"choices":[{"index":0,"delta":{"content":"x"},"message":{"tool_calls":[%b]}}]}' % CALL,
        b'{"choices":[{"index":0,"delta":{"content":"x"}}],"tool_calls":[%b]}' % CALL,
        b'{"choices":[{"index":0,"delta":{"tool_calls":[%b],"tool_calls":[%b]}}]}' % (CALL, CALL),
        b'{"choices":[{"index":0,"delta":{"tool_calls":[{"function":{"name":"a","n\\u0061me":"b"}}]}}]}',
        b'{"choices":[{"index":0,"delta":{"tool_calls":[{"function":{"name":"a"},"custom":{"name":"b"}}]}}]}',
    ],
)
def test_what_has_no_one_reading_is_unreadable(data: bytes) -> None:
    (event,) = chunk(data)
    assert isinstance(event, Unreadable)
    whole = read_body(data.replace(b'"delta"', b'"message"')).events
    assert isinstance(whole[0], Unreadable) or b'"message":{"tool_calls"' in data


def test_a_body_without_choices_is_unreadable() -> None:
    assert isinstance(read_body(b"{}").events[0], Unreadable)
    assert read_body(b'{"id":"x","choices":[]}').events == (Started("x", ""), Ended())
