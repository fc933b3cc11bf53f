"""Anthropic replies: what hostile and odd ones mean, so that no agent runs a call that was not judged."""

from __future__ import annotations

import json

import pytest

from llm_proxy.chat.events import (
    ANTHROPIC_FORMAT,
    CallDelta,
    Ended,
    Event,
    Failed,
    Finished,
    Frame,
    Reasoning,
    ReasoningKind,
    ServerTool,
    Started,
    Text,
    Unreadable,
    Usage,
    UsageSeen,
)
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES, COUNT_TOKENS, count_body
from llm_proxy.wire.sse import SseFrame, read_one, render

CALL: dict[str, object] = {"type": "tool_use", "id": "t1", "name": "read", "input": {}}
TEXT: dict[str, object] = {"type": "text", "text": ""}
SERVER: dict[str, object] = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}


def sse(type_: str, *, named: bool = True, **fields: object) -> SseFrame:
    data = json.dumps({"type": type_, **fields}, ensure_ascii=False).encode()
    return read_one(render(data, type_ if named else ""))


def begin(*, named: bool = True, **message: object) -> SseFrame:
    return sse("message_start", named=named, message={"id": "m1", "model": "c", "content": [], **message})


def start(index: int, block: dict[str, object], *, named: bool = True) -> SseFrame:
    return sse("content_block_start", named=named, index=index, content_block=block)


def delta(index: int, type_: str, *, named: bool = True, **fields: object) -> SseFrame:
    return sse("content_block_delta", named=named, index=index, delta={"type": type_, **fields})


def piece(index: int, text: str, *, named: bool = True) -> SseFrame:
    return delta(index, "input_json_delta", named=named, partial_json=text)


def stop(index: int) -> SseFrame:
    return sse("content_block_stop", index=index)


def end(reason: str | None = "end_turn", usage: dict[str, object] | None = None) -> SseFrame:
    return sse("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage=usage)


def read(*frames: SseFrame) -> list[Event]:
    reader = ANTHROPIC_MESSAGES.frame_reader()
    return [event for frame in frames for event in reader(frame).events]


def why(*frames: SseFrame) -> str:
    """Why the last frame can't be read; the ones before it can."""
    *before, last = read(*frames)
    assert not any(isinstance(event, Unreadable) for event in before)
    assert isinstance(last, Unreadable)
    return last.why


STARTED = Started("m1", "c")


def test_a_call() -> None:
    events = read(begin(), start(0, CALL), piece(0, ""), piece(0, '{"a"'), piece(0, ":1}"), stop(0))
    assert events == [
        STARTED,
        CallDelta(0, 0, "t1", "read"),
        CallDelta(0, 0),
        CallDelta(0, 0, arguments='{"a"'),
        CallDelta(0, 0, arguments=":1}"),
    ]


@pytest.mark.parametrize("pieces", [[], [""]])
def test_a_call_without_arguments_has_an_empty_object(pieces: list[str]) -> None:
    events = read(begin(), start(0, CALL), *[piece(0, text) for text in pieces], stop(0))
    assert events[-1] == CallDelta(0, 0, arguments="{}")


def test_a_call_whose_arguments_come_with_its_start() -> None:
    block = {**CALL, "input": {"a": 1}}
    assert read(begin(), start(0, block), piece(0, ""), stop(0))[1:] == [
        CallDelta(0, 0, "t1", "read", '{"a": 1}'),
        CallDelta(0, 0),
    ]
    assert "twice" in why(begin(), start(0, block), piece(0, '{"a":2}'))


def test_a_providers_tool_streams_no_call() -> None:
    events = read(begin(), start(0, SERVER), piece(0, '{"query"'), piece(0, ':"x"}'), stop(0))
    assert events == [STARTED, ServerTool(0, 0, "web_search", "s1")]


def test_a_kind_of_call_that_is_not_known_is_judged() -> None:
    block = {**CALL, "type": "phone_tool_use"}
    assert read(begin(), start(0, block))[-1] == CallDelta(0, 0, "t1", "read")


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([start(0, CALL)], id="before the message"),
        pytest.param([begin(), start(1, CALL)], id="a place too far"),
        pytest.param([begin(), start(0, TEXT), stop(0), start(0, CALL)], id="a place twice"),
        pytest.param([begin(), start(3, TEXT), stop(3), start(1, CALL)], id="behind a stray block"),
        pytest.param([begin(), start(0, CALL), stop(0), start(0, TEXT)], id="a block in a call's place"),
        pytest.param([begin(), start(0, CALL), start(2, TEXT)], id="a stray block behind a call"),
        pytest.param([begin(), end("tool_use"), start(0, CALL)], id="behind the stop reason"),
        pytest.param([begin(), sse("message_stop"), start(0, CALL)], id="behind the end"),
        pytest.param([begin(), start(0, CALL, named=False)], id="unnamed among named"),
        pytest.param([begin(named=False), start(0, CALL)], id="named among unnamed"),
        pytest.param([begin(), start(0, TEXT, named=False), start(1, CALL)], id="behind an unnamed block"),
    ],
)
def test_a_call_out_of_place_is_unreadable(frames: list[SseFrame]) -> None:
    assert why(*frames) == "A tool call is not in its place in the message"


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([begin(), start(0, CALL), piece(1, "{}")], id="of no block"),
        pytest.param([begin(), start(0, CALL), stop(0), piece(0, "{}")], id="behind the block's stop"),
        pytest.param([piece(0, "{}")], id="before everything"),
        pytest.param([begin(), start(0, CALL), piece(0, "{}", named=False)], id="unnamed"),
        pytest.param([begin(), start(0, CALL), begin()], id="a second message"),
        pytest.param([begin(content=[{**CALL, "input": {"a": 1}}])], id="inside the start"),
    ],
)
def test_a_stream_that_agents_read_differently_is_unreadable(frames: list[SseFrame]) -> None:
    assert why(*frames)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("content_block_delta", b'{"type":"ping","type":"content_block_delta","index":0}'),
        (
            "content_block_start",
            b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"a","name":"b"}}',
        ),
        (
            "content_block_delta",
            b'{"type":"content_block_delta","index":0,"index":1,"delta":{"type":"input_json_delta","partial_json":"1"}}',
        ),
        (
            "content_block_delta",
            b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a",'
            b'"ty\\u0070e":"input_json_delta","partial_json":"1"}}',
        ),
        (
            "content_block_delta",
            b'{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"1"},'
            b'"delta":{"text":"a","type":"text_delta"}}',
        ),
        (
            "content_block_delta",
            b'{"type":"content_block_delta","index":0,'
            b'"delta":{"type":"input_json_delta","partial_json":"1","partial_json":"2"}}',
        ),
        (
            "content_block_delta",
            b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"'
            + b"a" * 4_000
            + b'","ty\\u0070e":"input_json_delta","partial_json":"1"}}',
        ),
        (
            "content_block_delta",
            b'{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"1",'
            b'"\\u0070artial\\u005fjson" : "2"}}',
        ),
        ("ping", b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use"}}'),
        ("content_block_stop", b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta"}}'),
        ("content_block_start", b'{"type":"content_block_start","index":0}'),
        ("content_block_start", b'{"type":"content_block_start","index":0,"content_block":[1]}'),
        ("content_block_start", b'{"type":"content_block_start","index":"0","content_block":{}}'),
        ("content_block_delta", b'{"type":"content_block_delta","index":0,"delta":{"text":7}}'),
        ("content_block_delta", b'{"type":"content_block_delta"'),
        ("content_block_delta", b'{"type":"content_block_delta","delta":{"text":"\xff"}}'),
        ("", b"[1]"),
        ("", b'{"type":' + b"[" * 100_000),
    ],
)
def test_an_event_that_can_be_read_in_two_ways_or_in_none(event: str, data: bytes) -> None:
    assert why(read_one(render(data, event)))
    alone = ANTHROPIC_MESSAGES.read_frame(read_one(render(data, event)))
    assert [type(e) for e in alone.events] == [Unreadable]


@pytest.mark.parametrize(
    "text", ["plain", 'with "type" and "partial_json"', "{\\u0041}", "Zürich\n", '"type"']
)
def test_text_and_thinking_flow_whatever_they_say(text: str) -> None:
    events = read(
        begin(),
        start(0, {"type": "thinking", "thinking": "Hm ", "signature": ""}),
        delta(0, "thinking_delta", thinking=text),
        delta(0, "signature_delta", signature="S=="),
        start(1, {"type": "text", "text": "So "}),
        delta(1, "text_delta", text=text),
        delta(1, "citations_delta", citation={"type": "char_location", "cited_text": text}),
        delta(1, "vendor_delta", text=text),
        start(2, {"type": "vendor_block", "text": text}),
        sse("vendor_event", text=text),
    )
    assert events == [
        STARTED,
        Reasoning(0, "Hm ", ReasoningKind.RAW, 0, format=ANTHROPIC_FORMAT),
        Reasoning(0, text, ReasoningKind.RAW, 0, format=ANTHROPIC_FORMAT),
        Reasoning(0, "", ReasoningKind.RAW, 0, "S==", format=ANTHROPIC_FORMAT),
        Text(0, "So "),
        Text(0, text),
    ]


def test_text_in_odd_places_is_still_text() -> None:
    assert read(begin(), start(4, TEXT), delta(4, "text_delta", text="a"))[1:] == [Text(0, "a")]


def test_a_stream_without_event_names() -> None:
    events = read(begin(named=False), start(0, CALL, named=False), piece(0, "{}", named=False))
    assert events[1:] == [CallDelta(0, 0, "t1", "read"), CallDelta(0, 0, arguments="{}")]


def usage(events: list[Event]) -> list[Usage]:
    return [event.usage for event in events if isinstance(event, UsageSeen)]


@pytest.mark.parametrize(
    ("first", "last", "whole"),
    [
        ({"input_tokens": 9, "output_tokens": 1}, {"output_tokens": 5}, Usage(input=9, output=5)),
        ({"input_tokens": 0}, {"input_tokens": 9, "output_tokens": 5}, Usage(input=9, output=5)),
        (
            {"input_tokens": 2, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 4},
            {"input_tokens": 0, "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 6}},
            Usage(input=36, output=7, cached=30, cache_write=4, reasoning=6),
        ),
        ({"input_tokens": None, "output_tokens": -4}, {"output_tokens": 3}, Usage(output=3)),
    ],
)
def test_usage_at_the_end_adds_to_usage_at_the_start(
    first: dict[str, object], last: dict[str, object], whole: Usage
) -> None:
    seen = usage(read(begin(usage=first), end(usage=last)))
    assert len(seen) == 2
    assert seen[-1] == whole


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_call"),
        ("pause_turn", "pause"),
        ("refusal", "refusal"),
        ("stop_sequence", "stop_sequence"),
        ("compaction", "compaction"),
    ],
)
def test_stop_reasons(reason: str, finish: str) -> None:
    assert Finished(0, finish) in read(begin(), end(reason))
    body = json.dumps({"id": "m", "content": [], "stop_reason": reason}).encode()
    assert Finished(0, finish) in ANTHROPIC_MESSAGES.read_body(body).events
    assert not any(isinstance(event, Finished) for event in read(begin(), end(None)))


@pytest.mark.parametrize(
    ("event", "data", "failed"),
    [
        (
            "error",
            b'{"type":"error","error":{"type":"api_error","message":"No"}}',
            Failed("No", "api_error"),
        ),
        ("", b'{"type":"error","error":{"type":"api_error","message":"No"}}', Failed("No", "api_error")),
        ("error", b'{"error":"No"}', Failed("No")),
        ("error", b'{"message":"No","code":529}', Failed("No", "529")),
        ("error", b"", Failed("The upstream reported an error")),
        ("error", b"overloaded", Failed("The upstream reported an error")),
        ("error", b'{"error":[]}', Failed("The upstream reported an error of unknown shape")),
    ],
)
def test_errors_in_the_stream(event: str, data: bytes, failed: Failed) -> None:
    frame = SseFrame(b"x", event, data)
    assert ANTHROPIC_MESSAGES.frame_reader()(frame).events == (failed,)
    assert ANTHROPIC_MESSAGES.read_frame(frame).events == (failed,)


def test_frames_that_mean_nothing() -> None:
    reader = ANTHROPIC_MESSAGES.frame_reader()
    assert reader(SseFrame(b": hi\n\n")) == Frame(b": hi\n\n", inert=True)
    assert reader(read_one(b"data: [DONE]\n\n")).events == ()
    padded = SseFrame(b"x", "message_stop", b'  {"type":"message_stop"} ')
    assert reader(padded).events == (Ended(),)


def test_a_cut_frame_is_read_only_where_it_ends_the_message() -> None:
    reader = ANTHROPIC_MESSAGES.frame_reader()
    cut = SseFrame(b"x", "message_stop", b'{"type":"message_stop"}', truncated=True)
    assert reader(cut).events == (Ended(),)
    for data in (b'{"type":"ping"}', b'{"type":"pi', b"", b"[DONE"):
        (event,) = reader(SseFrame(b"x", "", data, truncated=True)).events
        assert event == Unreadable("The stream was cut inside an event")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"content":"text"}',
        b'{"content":[7]}',
        b'{"content":[{"type":"text","text":7}]}',
        b'{"content":[{"type":"tool_use","name":"a","name":"b"}]}',
        b'{"content":[{"type":"tool_use","name":"a"}],"content":[]}',
        b'{"content":[{"type":"tool\\u005fuse","name":"a"}],"content":[]}',
        b'{"content":[{"type":"tool_use","input":{"to":"a","to":"b"}}]}',
    ],
)
def test_bodies_that_can_be_read_in_two_ways_or_in_none(body: bytes) -> None:
    (event,) = ANTHROPIC_MESSAGES.read_body(body).events
    assert isinstance(event, Unreadable)


def test_a_whole_calls_arguments_are_its_own_bytes() -> None:
    body = b'{"content":[{"type":"tool_use","id":"t","name":"a","input": { "n":1.0 } },{"type":"tool_use"}]}'
    assert ANTHROPIC_MESSAGES.read_body(body).events[1:] == (
        CallDelta(0, 0, "t", "a", '{ "n":1.0 }'),
        CallDelta(0, 1, arguments="{}"),
        Ended(),
    )


def test_a_count_costs_nothing() -> None:
    body = count_body(2095)
    assert json.loads(body) == {"input_tokens": 2095}
    assert COUNT_TOKENS.read_body(body) == Frame(body, (Ended(),))
    failed = b'{"type":"error","error":{"type":"not_found_error","message":"model: x"}}'
    assert COUNT_TOKENS.read_body(failed).events == (Failed("model: x", "not_found_error"),)
    for odd in (b"", b"{}", b'{"input_tokens":"7"}'):
        assert [type(event) for event in COUNT_TOKENS.read_body(odd).events] == [Unreadable]
    frame = SseFrame(b"x", "", body)
    assert [type(event) for event in COUNT_TOKENS.read_frame(frame).events] == [Unreadable]
    assert COUNT_TOKENS.edit_body(body, {(0, 0): "no"}) is body
    assert COUNT_TOKENS.edit_frames([Frame(b"x")], {(0, 0): "no"}) == [b"x"]
