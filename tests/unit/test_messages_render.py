"""Replies written anew as Anthropic Messages: the vendor's SDK reads them, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from llm_proxy.chat.events import (
    ANTHROPIC_FORMAT,
    GEMINI_FORMAT,
    RESPONSES_FORMAT,
    CallDelta,
    Ended,
    Event,
    Failed,
    Finished,
    Reasoning,
    ReasoningKind,
    Refusal,
    ServerTool,
    Started,
    Text,
    Unreadable,
    Usage,
    UsageSeen,
)
from llm_proxy.chat.prompt import CallPart, Part, ThoughtPart
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.anthropic_messages.prompt_read import read_prompt
from llm_proxy.wire.anthropic_messages.translation import TRANSLATION
from llm_proxy.wire.dialect import About
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import object_spans
from llm_proxy.wire.sse import SseReader

EVENT = TypeAdapter[Any](RawMessageStreamEvent)
RAWS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
THINK = {"thinking": {"type": "enabled", "budget_tokens": 2000}}
STARTED = Started("up-1", "gpt-5")
USAGE = UsageSeen(Usage(input=100, output=40, cached=60, cache_write=10, reasoning=7))


def about(**fields: object) -> About:
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": [], **fields}).encode()
    request = WireRequest(body=body, model="m", spans=object_spans(body, RAWS(body)))
    return About(call_id="0192-ab-cd", model="asked", created=1, request=request)


def stream(events: Sequence[Event], of: About) -> list[dict[str, Any]]:
    """Every event of the stream, each checked by the vendor's types."""
    renderer = TRANSLATION.renderer(of)
    raw = b"".join([renderer.render([event]) for event in events]) + renderer.close()
    reader = SseReader()
    frames = reader.feed(raw) + reader.close()
    for frame in frames:
        assert frame.event == json.loads(frame.data)["type"]
        EVENT.validate_json(frame.data, strict=True)
    return [json.loads(frame.data) for frame in frames]


def accumulate(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the vendor's SDK makes of a stream."""
    snapshot = None
    buffers: dict[int, bytes] = {}
    for event in events:
        snapshot = accumulate_event(
            event=EVENT.validate_python(event), current_snapshot=snapshot, json_bufs=buffers
        )
    assert snapshot is not None
    return json.loads(Message.model_validate(snapshot.to_dict()).model_dump_json(exclude_none=True))


def check_blocks(events: Sequence[dict[str, Any]]) -> None:
    """One block open at a time, the indexes without a gap, the message's own events around them."""
    types = [event["type"] for event in events]
    assert (types[0], types[-2:]) == ("message_start", ["message_delta", "message_stop"])
    opened, current = 0, None
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert (current, event["index"]) == (None, opened)
            current, opened = opened, opened + 1
        else:
            assert event["index"] == current
            if event["type"] == "content_block_stop":
                current = None
    assert current is None


def render(*events: Event, **fields: object) -> dict[str, Any]:
    """The message, which is the same whole and streamed."""
    of = about(**fields)
    streamed = stream(events, of)
    check_blocks(streamed)
    whole = Message.model_validate_json(TRANSLATION.render_body(events, of), strict=True)
    message = json.loads(whole.model_dump_json(exclude_none=True))
    assert accumulate(streamed) == message
    return message


def test_text() -> None:
    message = render(STARTED, Text(0, "Hel"), Text(0, "lo\n"), Finished(0, "stop"), USAGE, Ended())
    assert message == {
        "id": "msg_0192abcd",
        "type": "message",
        "role": "assistant",
        "model": "gpt-5",
        "content": [{"type": "text", "text": "Hello\n"}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 30,
            "cache_read_input_tokens": 60,
            "cache_creation_input_tokens": 10,
            "output_tokens": 40,
            "output_tokens_details": {"thinking_tokens": 7},
        },
    }


def test_deltas_go_out_at_once() -> None:
    renderer = TRANSLATION.renderer(about())
    assert renderer.render([STARTED]).startswith(b"event: message_start\n")
    assert b"content_block_start" in renderer.render([Text(0, "a")])
    assert renderer.render([Text(0, 'b"\n%d')]) == (
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"b\\"\\n%d"}}\n\n'
    )
    assert renderer.render([Finished(0, "stop"), USAGE]) == b""


def test_nothing_at_all() -> None:
    message = render()
    assert (message["model"], message["content"], message["stop_reason"]) == ("asked", [], "end_turn")
    assert message["usage"]["output_tokens"] == 0


def test_what_is_not_rendered() -> None:
    ignored = (
        Failed("boom"),
        Unreadable("bad"),
        ServerTool(0, 0, "web_search", raw=b"{}"),
        Text(1, "other"),
        Text(0, ""),
        CallDelta(1, 0, "c", "f", "{}"),
        Refusal(1, "no"),
        Finished(1, "length"),
        Reasoning(0, "unasked"),
    )
    assert render(STARTED, *ignored) == render(STARTED)


def test_usage_known_at_the_start_stands_there() -> None:
    events = stream([USAGE, STARTED], about())
    assert events[0]["message"]["usage"]["input_tokens"] == 30


def test_calls_that_come_mixed() -> None:
    message = render(
        STARTED,
        Text(0, "Both."),
        CallDelta(0, 0, "call_1", "read", ""),
        CallDelta(0, 1, "call.2", "now", ""),
        CallDelta(0, 0, "", "", '{"path":'),
        CallDelta(0, 0, "", "", ' "ä"}'),
        CallDelta(0, 2, "", "patch", "*** Begin", custom=True),
        CallDelta(0, 3, "call_4", "odd", '{"cut": '),
        Finished(0, "tool_call"),
    )
    text, *calls = message["content"]
    assert text["type"] == "text"
    assert [(c["id"], c["name"], c["input"]) for c in calls] == [
        ("call_1", "read", {"path": "ä"}),
        (calls[1]["id"], "now", {}),
        ("toolu_0192abcd_2", "patch", {"input": "*** Begin"}),
        ("call_4", "odd", {"input": '{"cut": '}),
    ]
    assert calls[1]["id"].startswith("call_2_")
    assert message["stop_reason"] == "tool_use"


def test_a_note_in_place_of_a_denied_call_comes_before_the_calls() -> None:
    message = render(
        Text(0, "a"), CallDelta(0, 0, "c", "f", "{}"), Text(0, "denied"), Finished(0, "tool_call")
    )
    assert [block["type"] for block in message["content"]] == ["text", "tool_use"]


@pytest.mark.parametrize(
    ("finish", "calls", "reason", "sequence"),
    [
        (Finished(0, "stop"), False, "end_turn", None),
        (Finished(0, "stop"), True, "tool_use", None),
        (Finished(0, "tool_call"), True, "tool_use", None),
        (Finished(0, "tool_call"), False, "end_turn", None),
        (Finished(0, "length"), True, "max_tokens", None),
        (Finished(0, "content_filter"), False, "refusal", None),
        (Finished(0, "refusal"), False, "refusal", None),
        (Finished(0, "pause"), False, "pause_turn", None),
        (Finished(0, "stop_sequence", "END"), False, "stop_sequence", "END"),
        (Finished(0, "model_context_window_exceeded"), False, "model_context_window_exceeded", None),
        (Finished(0, "vendor_word"), False, "end_turn", None),
    ],
)
def test_stop_reasons(finish: Finished, calls: bool, reason: str, sequence: str | None) -> None:
    message = render(*([CallDelta(0, 0, "c", "f", "{}")] if calls else []), finish)
    assert (message["stop_reason"], message.get("stop_sequence")) == (reason, sequence)


def test_a_refusal_in_words() -> None:
    message = render(Text(0, "Well,"), Refusal(0, "I can't "), Refusal(0, "do that."), Finished(0, "stop"))
    assert [block["text"] for block in message["content"]] == ["Well,", "I can't do that."]
    assert message["stop_reason"] == "refusal"


def test_thinking_of_anthropics_own() -> None:
    message = render(
        STARTED,
        Reasoning(0, "Let me", part=0, format=ANTHROPIC_FORMAT),
        Reasoning(0, " see.", part=0, format=ANTHROPIC_FORMAT),
        Reasoning(0, "", part=0, signature="Eqo", format=ANTHROPIC_FORMAT),
        Reasoning(0, "", part=0, signature="B==", format=ANTHROPIC_FORMAT),
        Reasoning(0, "Emw", ReasoningKind.REDACTED, 1, format=ANTHROPIC_FORMAT),
        Reasoning(0, "", part=2, signature="Omitted", format=ANTHROPIC_FORMAT),
        Text(0, "Done."),
        Finished(0, "stop"),
        **THINK,
    )
    assert message["content"] == [
        {"type": "thinking", "thinking": "Let me see.", "signature": "EqoB=="},
        {"type": "redacted_thinking", "data": "Emw"},
        {"type": "thinking", "thinking": "", "signature": "Omitted"},
        {"type": "text", "text": "Done."},
    ]


@pytest.mark.parametrize("thinking", [None, {"type": "disabled"}])
def test_reasoning_is_for_those_who_asked(thinking: object) -> None:
    message = render(Reasoning(0, "Hm."), Text(0, "a"), Reasoning(0, "Hm."), Text(0, "b"), thinking=thinking)
    assert message["content"] == [{"type": "text", "text": "ab"}]


def test_words_without_a_seal() -> None:
    message = render(Reasoning(0, "Hm."), Text(0, "a"), thinking={"type": "adaptive"})
    assert message["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": ""}


def sent_back(message: dict[str, Any]) -> tuple[Part, ...]:
    """The parts that the caller's next request holds, given the reply as its agent sends it back."""
    turn = {"role": "assistant", "content": message["content"]}
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": [turn]}).encode()
    prompt = read_prompt(WireRequest(body=body, model="m", spans=object_spans(body, RAWS(body))))
    return prompt.messages[0].parts


def thought(kind: ReasoningKind, text: str = "", **fields: str) -> ThoughtPart:
    return ThoughtPart(thought=ReasoningPart(kind=kind, text=text, **fields))


@pytest.mark.parametrize(
    ("events", "parts"),
    [
        (
            [
                Reasoning(0, "**Plan**", ReasoningKind.SUMMARY, 0, id="rs_1", format=RESPONSES_FORMAT),
                Reasoning(0, "gAAA", ReasoningKind.ENCRYPTED, 0, id="rs_1", format=RESPONSES_FORMAT),
            ],
            [
                thought(ReasoningKind.SUMMARY, "**Plan**", id="rs_1", format=RESPONSES_FORMAT),
                thought(ReasoningKind.ENCRYPTED, "gAAA", id="rs_1", format=RESPONSES_FORMAT),
            ],
        ),
        (
            [Reasoning(0, "gAAA", ReasoningKind.ENCRYPTED, 0, id="rs_1", format=RESPONSES_FORMAT)],
            [thought(ReasoningKind.ENCRYPTED, "gAAA", id="rs_1", format=RESPONSES_FORMAT)],
        ),
        (
            [Reasoning(0, "Hm.", part=0), Reasoning(0, "", part=0, signature="Cg==", format=GEMINI_FORMAT)],
            [thought(ReasoningKind.RAW, "Hm.", signature="Cg==", format=GEMINI_FORMAT)],
        ),
        (
            [Reasoning(0, "", signature="Cg==", format=GEMINI_FORMAT)],
            [thought(ReasoningKind.RAW, signature="Cg==", format=GEMINI_FORMAT)],
        ),
        (
            [Reasoning(0, "raw"), Reasoning(0, "short", ReasoningKind.SUMMARY)],
            [thought(ReasoningKind.RAW, "raw"), thought(ReasoningKind.RAW, "short")],
        ),
    ],
)
def test_another_vendors_seal_comes_back_whole(events: list[Event], parts: list[Part]) -> None:
    assert list(sent_back(render(*events, **THINK))) == parts


def test_a_calls_own_seal_comes_back_with_it() -> None:
    """Gemini's, which its next turn needs whether or not thinking was asked for."""
    message = render(
        CallDelta(0, 0, "call_1", "f", "{}", signature="Cg=="), CallDelta(0, 1, "call_2", "g", "{}")
    )
    assert [block["type"] for block in message["content"]] == ["redacted_thinking", "tool_use", "tool_use"]
    assert sent_back(message) == (
        CallPart(id="call_1", name="f", arguments="{}", signature="Cg=="),
        CallPart(id="call_2", name="g", arguments="{}"),
    )
