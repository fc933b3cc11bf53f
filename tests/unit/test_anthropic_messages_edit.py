"""Denied tool calls taken out of Anthropic replies, whole and streamed, as the SDK then reads them."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from anthropic import Anthropic

from llm_proxy.chat.events import CallDelta, Frame
from llm_proxy.policy.gate import Gate
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES
from llm_proxy.wire.dialect import Denied
from llm_proxy.wire.sse import SseReader, read_one

FIXTURES = Path(__file__).parents[1] / "golden" / "anthropic_messages"
NOTE = "NOT EXECUTED: send is denied by rule exfil"
SAFE: dict[str, object] = {"type": "tool_use", "id": "t1", "name": "read", "input": {"p": 1.0}}
EVIL: dict[str, object] = {"type": "tool_use", "id": "t2", "name": "send", "input": {"to": "x"}}
THINKING: dict[str, object] = {"type": "thinking", "thinking": "Hm.", "signature": "S/=="}


def said(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def body(*content: dict[str, object], stop: str = "tool_use") -> bytes:
    top = {"id": "m", "vendor": 1.50, "content": content, "stop_reason": stop, "usage": {"output_tokens": 1}}
    return json.dumps(top, separators=(" , ", " : ")).encode()


def test_nothing_denied_is_the_same_object() -> None:
    source = body(SAFE)
    assert ANTHROPIC_MESSAGES.edit_body(source, {}) is source
    assert ANTHROPIC_MESSAGES.edit_body(source, {(0, 5): NOTE, (1, 0): NOTE}) is source
    assert ANTHROPIC_MESSAGES.edit_body(body(said("a")), {(0, 0): NOTE}) == body(said("a"))


@pytest.mark.parametrize(
    ("content", "denied", "left", "stop"),
    [
        ([EVIL], [0], [said("0")], "end_turn"),
        ([THINKING, said("a"), EVIL], [2], [THINKING, said("a"), said("2")], "end_turn"),
        ([THINKING, EVIL, SAFE], [1], [THINKING, said("1"), SAFE], "tool_use"),
        ([SAFE, EVIL], [1], [SAFE, said("1")], "tool_use"),
        ([EVIL, EVIL], [0, 1], [said("0\n\n1")], "end_turn"),
        ([EVIL, SAFE, EVIL, said("b")], [0, 2], [said("0\n\n2"), SAFE, said("b")], "tool_use"),
        ([SAFE, EVIL, EVIL, SAFE], [1, 2], [SAFE, said("1\n\n2"), SAFE], "tool_use"),
    ],
)
def test_a_body(
    content: list[dict[str, object]], denied: list[int], left: list[dict[str, object]], stop: str
) -> None:
    edited = ANTHROPIC_MESSAGES.edit_body(body(*content), {(0, n): str(n) for n in denied})
    assert json.loads(edited) == json.loads(body(*left, stop=stop))


def test_every_other_byte_of_a_body_stays() -> None:
    source = body(THINKING, EVIL, SAFE)
    evil = json.dumps(EVIL, separators=(" , ", " : ")).encode()
    note = json.dumps(said(NOTE), separators=(",", ":")).encode()
    assert ANTHROPIC_MESSAGES.edit_body(source, {(0, 1): NOTE}) == source.replace(evil, note)


def test_a_cut_short_reply_stays_one() -> None:
    edited = ANTHROPIC_MESSAGES.edit_body(body(EVIL, stop="max_tokens"), {(0, 0): NOTE})
    assert json.loads(edited)["stop_reason"] == "max_tokens"


def frames(stream: bytes) -> list[Frame]:
    read = ANTHROPIC_MESSAGES.frame_reader()
    reader = SseReader()
    return [read(sse) for sse in reader.feed(stream) + reader.close()]


def passed(stream: bytes, denied: Denied) -> bytes:
    """The stream as a caller gets it: what waits for its verdicts comes last."""
    gate = Gate(judging=True, ordered=True)
    flowing = [frame.raw for frame in frames(stream) if gate.admit(frame)]
    return b"".join([*flowing, *ANTHROPIC_MESSAGES.edit_frames(gate.open(), denied)])


def final(stream: bytes) -> dict[str, object]:
    """The message as the official SDK adds it up."""
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    sdk = Anthropic(
        api_key="k",
        base_url="http://127.0.0.1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(lambda _: response)),
    )
    with sdk.messages.stream(model="m", max_tokens=9, messages=[]) as events:
        return events.get_final_message().to_dict()


def fixture(name: str) -> bytes:
    return (FIXTURES / f"{name}.sse").read_bytes()


@pytest.mark.parametrize(
    ("denied", "left", "stop"),
    [
        ([], ["toolu_01A", "toolu_01B", "toolu_01C"], "tool_use"),
        ([1], ["1", "toolu_01B", "toolu_01C"], "tool_use"),
        ([2], ["toolu_01A", "2", "toolu_01C"], "tool_use"),
        ([3], ["toolu_01A", "toolu_01B", "3"], "tool_use"),
        ([1, 2], ["1\n\n2", "toolu_01C"], "tool_use"),
        ([1, 3], ["1\n\n3", "toolu_01B"], "tool_use"),
        ([2, 3], ["toolu_01A", "2\n\n3"], "tool_use"),
        ([1, 2, 3], ["1\n\n2\n\n3"], "end_turn"),
    ],
)
def test_a_stream_of_parallel_calls(denied: list[int], left: list[str], stop: str) -> None:
    stream = fixture("parallel")
    out = passed(stream, {(0, n): str(n) for n in denied})
    message = final(out)
    content = message["content"]
    assert isinstance(content, list)
    assert content[0]["text"] == "Checking both."
    assert [block.get("text") or block["id"] for block in content[1:]] == left
    assert message["stop_reason"] == stop
    events = [json.loads(read_one(frame.raw).data) for frame in frames(out)]
    indexes = [event["index"] for event in events if event["type"] == "content_block_start"]
    assert indexes == list(range(len(left) + 1))
    if not denied:
        assert out == stream


def test_the_thinking_before_a_denied_call_stays_byte_for_byte() -> None:
    stream = fixture("thinking")
    out = passed(stream, {(0, 2): NOTE})
    cut = stream.index(b'event: content_block_start\ndata: {"type":"content_block_start","index":2')
    assert out.startswith(stream[:cut])
    assert b"get_weather" not in out
    assert b"toolu_" not in out
    message = final(out)
    content = message["content"]
    assert isinstance(content, list)
    assert [block["type"] for block in content] == ["thinking", "text", "text"]
    assert content[2]["text"] == NOTE
    assert message["stop_reason"] == "end_turn"
    assert message["usage"] == final(stream)["usage"]


STREAM = [
    '{"type":"message_start","message":{"id":"m","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}',
    '{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"send","input":{}}}',
    '{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{}"}}',
    '{"type":"ping"}',
    '{"type":"content_block_stop","index":0}',
    '{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","name":"send","input":{}}}',
    '{"type":"content_block_stop","index":1}',
    '{ "index" : 2, "type":"content_block_start","content_block":{"type":"thinking","thinking":""}}',
    '{"type":"content_block_delta","index":2,"delta":{"type":"signature_delta","signature":"S\\/=="} ,"v":1}',
    '{"type":"content_block_stop","index":2}',
    '{"type":"message_delta","delta":{"stop_reason":"tool_use","v":1.0},"usage":{"output_tokens":2}}',
    '{"type":"message_stop"}',
]


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
@pytest.mark.parametrize("named", [True, False])
def test_blocks_behind_the_denied_are_renumbered_and_stay(end: str, *, named: bool) -> None:
    line = end[: len(end) // 2]
    events = [f"event: {json.loads(data)['type']}{line}" if named else "" for data in STREAM]
    stream = "".join([f"{e}data: {d}{end}" for e, d in zip(events, STREAM, strict=True)]).encode()
    sent = [read_one(frame.raw) for frame in frames(passed(stream, {(0, 0): "a", (0, 1): "b"}))]
    assert {(sse.event or None) is not None for sse in sent} == {named}
    assert [json.loads(sse.data) for sse in sent] == [
        *[json.loads(STREAM[n]) for n in (0, 3)],
        {"type": "content_block_start", "index": 0, "content_block": said("")},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a\n\nb"}},
        {"type": "content_block_stop", "index": 0},
        *[{**json.loads(STREAM[n]), "index": 1} for n in (7, 8, 9)],
        {**json.loads(STREAM[10]), "delta": {"stop_reason": "end_turn", "v": 1.0}},
        json.loads(STREAM[11]),
    ]
    assert any(b'"signature":"S\\/=="' in sse.data for sse in sent)


def test_a_frame_that_cannot_be_read_is_not_released() -> None:
    held = frames(fixture("parallel"))
    broken = Frame(b'event: content_block_start\ndata: {"type":"content_block_start","secret\n\n')
    first = next(n for n, f in enumerate(held) if any(isinstance(e, CallDelta) for e in f.events))
    out = ANTHROPIC_MESSAGES.edit_frames([*held[first:], broken], {(0, 1): NOTE})
    assert b"secret" not in b"".join(out)
