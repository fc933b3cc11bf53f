"""Replies written as OpenAI's Responses: their events, how they end, what they repeat."""

from __future__ import annotations

import pytest

from llm_proxy.chat.events import (
    CallDelta,
    Ended,
    Failed,
    Finished,
    Reasoning,
    ReasoningKind,
    Refusal,
    ServerTool,
    Text,
)
from llm_proxy.wire.openai_responses.translation import TRANSLATION
from tests.unit.responses_rendering import START, STEM, USAGE, about, replies, stream


def test_the_whole_sequence() -> None:
    events = [
        START,
        Reasoning(0, "Let me ", ReasoningKind.SUMMARY),
        Reasoning(0, "see.", ReasoningKind.SUMMARY),
        Text(0, ""),
        Text(0, "Hel"),
        Text(0, "lo\n"),
        CallDelta(0, 0, "c1", "get_weather", '{"city":'),
        CallDelta(0, 1, "c2", "get_time"),
        CallDelta(0, 0, "", "", '"Bern"}'),
        Finished(0, "tool_call"),
        USAGE,
        Ended(),
    ]
    found = stream(events, about())
    assert [data["type"] for data in found] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    response = replies(events)
    assert response["id"] == f"resp_{STEM}"
    assert (response["model"], response["created_at"]) == ("deepseek-reasoner", 1_790_000_000)
    assert (response["status"], response["error"], response["incomplete_details"]) == (
        "completed",
        None,
        None,
    )
    assert response["usage"] == {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 29,
    }
    assert response["output"] == [
        {
            "id": f"rs_{STEM}_0",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Let me see."}],
        },
        {
            "id": f"msg_{STEM}_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello\n"}],
        },
        {
            "id": f"fc_{STEM}_2",
            "type": "function_call",
            "status": "completed",
            "arguments": '{"city":"Bern"}',
            "call_id": "c1",
            "name": "get_weather",
        },
        {
            "id": f"fc_{STEM}_3",
            "type": "function_call",
            "status": "completed",
            "arguments": "{}",
            "call_id": "c2",
            "name": "get_time",
        },
    ]


def test_text_streams_at_once() -> None:
    renderer = TRANSLATION.renderer(about())
    assert b'"response.created"' in renderer.render([START])
    first = renderer.render([Text(0, "Hel")])
    assert b'"delta":"Hel"' in first
    assert renderer.render([Text(0, "lo")]).count(b"event: ") == 1
    assert renderer.render([]) == renderer.render([USAGE, Finished(0, "stop")]) == b""


def test_a_reply_that_says_nothing() -> None:
    response = replies([])
    assert (response["model"], response["output"], response["usage"]) == ("smart", [], None)


def test_what_is_not_rendered() -> None:
    said = [
        Text(0, "Hi"),
        Text(1, "Other"),
        ServerTool(0, 3, "web_search"),
        Failed("broken"),
        Finished(1, "length"),
    ]
    response = replies(said)
    assert [item["type"] for item in response["output"]] == ["message"]
    assert response["status"] == "completed"


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("stop", "completed", None),
        ("tool_call", "completed", None),
        ("stop_sequence", "completed", None),
        ("pause", "completed", None),
        ("", "completed", None),
        ("telepathy", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("refusal", "incomplete", "content_filter"),
    ],
)
def test_how_it_ends(finish: str, status: str, reason: str | None) -> None:
    events = [START, Reasoning(0, "Hm."), Text(0, "Hi"), Finished(0, finish), USAGE]
    response = replies(events)
    assert response["status"] == status
    assert response["incomplete_details"] == (reason and {"reason": reason})
    assert response["output"][-1]["status"] == status
    assert stream(events, about())[-1]["type"] == f"response.{status}"


def test_a_call_cut_short_is_incomplete() -> None:
    cut = [Text(0, "a"), CallDelta(0, 0, "c", "w", '{"a'), Finished(0, "length")]
    assert [item["status"] for item in replies(cut)["output"]] == ["completed", "incomplete"]


def test_a_refusal_in_words_is_a_complete_reply() -> None:
    response = replies([Text(0, "Well. "), Refusal(0, "I "), Refusal(0, "can't."), Finished(0, "refusal")])
    [message] = response["output"]
    assert response["status"] == "completed"
    assert message["content"][1] == {"type": "refusal", "refusal": "I can't."}


def test_refusal_events() -> None:
    kinds = [data["type"] for data in stream([Refusal(0, "No."), Text(0, "But.")], about())]
    assert kinds[3:-3] == [
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
    ]


class TestRepeated:
    def test_what_was_asked(self) -> None:
        asked = {
            "instructions": "Be brief.\nBe kind.",
            "tools": [{"type": "function", "name": "w", "parameters": {"type": "object"}, "strict": True}],
            "tool_choice": {"type": "function", "name": "w"},
            "temperature": 0.5,
            "top_p": 1,
            "parallel_tool_calls": False,
            "reasoning": {"effort": "low", "summary": "auto"},
            "metadata": {"a": "b"},
            "truncation": "auto",
            "max_output_tokens": 100,
            "previous_response_id": "resp_0",
            "store": False,
            "user": "u",
            "service_tier": "flex",
            "text": {"verbosity": "low", "format": {"type": "json_object"}},
        }
        response = replies([START], **asked)
        assert {key: response[key] for key in asked} == asked

    def test_what_was_not_asked(self) -> None:
        response = replies([START], tools=None, text={"verbosity": "high"})
        assert (response["tools"], response["tool_choice"]) == ([], "auto")
        assert (response["store"], response["parallel_tool_calls"], response["metadata"]) == (True, True, {})
        assert response["text"] == {"verbosity": "high", "format": {"type": "text"}}

    def test_every_response_of_a_stream_repeats_it(self) -> None:
        found = stream([START, Text(0, "Hi")], about(instructions="Be brief."))
        carried = [data["response"] for data in found if "response" in data]
        assert [response["instructions"] for response in carried] == ["Be brief."] * 3
        assert [response["status"] for response in carried] == ["in_progress", "in_progress", "completed"]
