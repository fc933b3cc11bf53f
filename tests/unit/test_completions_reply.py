"""Legacy completion replies: frames and bodies that are unusual, broken or not what was asked for."""

from __future__ import annotations

import pytest

from llm_proxy.chat.events import Ended, Event, Failed, Finished, Frame, Started, Text, Unreadable
from llm_proxy.wire.openai_completions import OPENAI_COMPLETIONS
from llm_proxy.wire.sse import SseFrame

DIALECT = OPENAI_COMPLETIONS


def frame(data: bytes, event: str = "", *, truncated: bool = False) -> Frame:
    raw = b"data: " + data + b"\n\n"
    read = DIALECT.read_frame(SseFrame(raw, event, data, truncated))
    assert read.raw is raw
    return read


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"", ()),
        (b"[DONE]", (Ended(),)),
        (b"  [DONE]", (Ended(),)),
        (b'{"choices":[{"text":"a","index":3}]}', (Text(3, "a"),)),
        (b'{"choices":[{"text":null}]}', ()),
        (b'  {"choices":[{"text":"a"}]}', (Text(0, "a"),)),
        (
            b'{"id":1,"model":"m","choices":[{"text":"a","finish_reason":"eos"}]}',
            (Started("1", "m"), Text(0, "a"), Finished(0, "eos")),
        ),
        (b'{"error":null,"choices":[{"text":"a"}]}', (Text(0, "a"),)),
        (
            b'{"choices":[{"text":"a","finish_reason":"error"}],"error":{"message":"no","code":502}}',
            (Started("", ""), Text(0, "a"), Failed("no", "502")),
        ),
        (b'{"object":"error","message":"no","code":404}', (Failed("no", "404"),)),
    ],
)
def test_what_a_frame_means(data: bytes, events: tuple[Event, ...]) -> None:
    assert frame(data).events == events


@pytest.mark.parametrize(
    "data",
    [
        b"null",
        b"{",
        b'{"choices":[{"text":7}]}',
        b'{"choices":[{"text":"\xff"}]}',
        b'{"choices":' + b"[" * 100_000,
        b'{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}',
        b'{"choices":[{"text":"","message":{"function_call":{"name":"f"}}}]}',
    ],
)
def test_what_cant_be_read_is_unreadable(data: bytes) -> None:
    (event,) = frame(data).events
    assert isinstance(event, Unreadable)
    (event,) = DIALECT.read_body(data).events
    assert isinstance(event, Unreadable)


def test_errors_as_events_and_frames_that_are_cut() -> None:
    assert frame(b'{"error":"full"}', "error").events == (Failed("full"),)
    (cut,) = frame(b'{"choices":[]}', truncated=True).events
    assert isinstance(cut, Unreadable)
    assert frame(b"[DONE]", truncated=True).events == (Ended(),)


def test_a_body_that_is_an_error() -> None:
    body = b'{"error":{"message":"no such model","type":"NotFoundError","code":404}}'
    assert DIALECT.read_body(body).events == (Failed("no such model", "404"),)
    assert DIALECT.read_body(b'{"object":"error","message":"x"}').events == (Failed("x"),)
    (event,) = DIALECT.read_body(b"{}").events
    assert isinstance(event, Unreadable)


def test_nothing_is_taken_out() -> None:
    body = b'{"choices":[]}'
    frames = [Frame(b"data: 1\n\n"), Frame(b"data: 2\n\n")]
    assert DIALECT.edit_body(body, {(0, 0): "note"}) is body
    assert DIALECT.edit_frames(frames, {(0, 0): "note"}) == [b"data: 1\n\n", b"data: 2\n\n"]
    assert DIALECT.signed(b'"prompt"') == ()
