"""Replies written anew as OpenAI chat completions, read back by the official SDK."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from llm_proxy.chat.events import (
    ANTHROPIC_FORMAT,
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
from llm_proxy.wire.dialect import About
from llm_proxy.wire.openai_chat.request import parse
from llm_proxy.wire.openai_chat.translation import TRANSLATION

USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 7,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
SEEN = UsageSeen(Usage(input=10, output=7, cached=4, cache_write=2, reasoning=3))


def about(*, include_usage: bool = True, **request: object) -> About:
    body = {"model": "alias", "messages": [{"role": "user", "content": "hi"}], **request}
    return About(
        call_id="0198-ab-cd",
        model="alias",
        created=1_762_000_000,
        include_usage=include_usage,
        request=parse(json.dumps(body).encode()),
    )


def stream(events: Sequence[Event], of: About) -> list[dict[str, object]]:
    """The stream's chunks; each is a valid one of the SDK's, and the stream ends as it should."""
    renderer = TRANSLATION.renderer(of)
    out = b"".join([renderer.render([event]) for event in events]) + renderer.close()
    again = TRANSLATION.renderer(of)
    assert again.render(events) + again.close() == out
    *frames, done, rest = out.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in frames]
    for chunk in chunks:
        assert list(chunk)[:4] == ["id", "object", "created", "model"]
        if '"custom"' not in json.dumps(chunk):
            ChatCompletionChunk.model_validate(chunk, strict=True)
    return chunks


def deltas(events: Sequence[Event], of: About | None = None) -> list[object]:
    chunks = stream(events, of or about())
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]  # pyright: ignore


def whole(events: Sequence[Event], of: About | None = None) -> dict[str, object]:
    body = TRANSLATION.render_body(events, of or about())
    ChatCompletion.model_validate_json(body, strict=True)
    return json.loads(body)


def message(events: Sequence[Event], of: About | None = None) -> dict[str, object]:
    return whole(events, of)["choices"][0]["message"]  # pyright: ignore


REPLY: list[Event] = [
    Started("msg_1", "claude-sonnet-4-5"),
    Reasoning(0, "Look ", ReasoningKind.RAW, 0, "", "", ANTHROPIC_FORMAT),
    Reasoning(0, "it up.", ReasoningKind.RAW, 0, "", "", ANTHROPIC_FORMAT),
    Reasoning(0, "", ReasoningKind.RAW, 0, "EqoB", "", ANTHROPIC_FORMAT),
    Reasoning(0, "Emwr", ReasoningKind.REDACTED, 1, "", "", ANTHROPIC_FORMAT),
    Text(0, "One "),
    Text(0, "moment."),
    ServerTool(0, 3, "web_search"),
    CallDelta(0, 4, "toolu_1", "search"),
    CallDelta(0, 7, "toolu_2", "get", "{}"),
    CallDelta(0, 4, "", "", '{"q":'),
    CallDelta(0, 4, "", "", '"ü"}'),
    Finished(0, "tool_call"),
    SEEN,
    Ended(),
]


def test_a_stream_adds_up_for_the_official_sdk() -> None:
    state = ChatCompletionStreamState()
    for chunk in stream(REPLY, about()):
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    completion = state.get_final_completion()
    choice = completion.choices[0]
    assert (completion.id, completion.model) == ("chatcmpl-0198abcd", "claude-sonnet-4-5")
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "One moment.")
    calls = choice.message.tool_calls or []
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("toolu_1", "search", '{"q":"ü"}'),
        ("toolu_2", "get", "{}"),
    ]
    assert completion.usage is not None
    assert completion.usage.model_dump(exclude_unset=True) == USAGE
    assert (choice.message.model_extra or {})["reasoning_content"] == "Look it up."
    (text, sealed) = (choice.message.model_extra or {})["reasoning_details"]
    assert (text["text"], text["signature"], sealed["data"]) == ("Look it up.", "EqoB", "Emwr")


def test_a_body() -> None:
    assert whole(REPLY) == {
        "id": "chatcmpl-0198abcd",
        "object": "chat.completion",
        "created": 1_762_000_000,
        "model": "claude-sonnet-4-5",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "One moment.",
                    "refusal": None,
                    "reasoning_content": "Look it up.",
                    "reasoning_details": [
                        {
                            "type": "reasoning.text",
                            "text": "Look it up.",
                            "signature": "EqoB",
                            "format": ANTHROPIC_FORMAT,
                            "index": 0,
                        },
                        {
                            "type": "reasoning.encrypted",
                            "data": "Emwr",
                            "format": ANTHROPIC_FORMAT,
                            "index": 1,
                        },
                    ],
                    "tool_calls": [
                        {
                            "id": "toolu_1",
                            "type": "function",
                            "function": {"name": "search", "arguments": '{"q":"ü"}'},
                        },
                        {"id": "toolu_2", "type": "function", "function": {"name": "get", "arguments": "{}"}},
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": USAGE,
    }


def test_only_the_first_delta_of_a_choice_names_the_role() -> None:
    events: list[Event] = [Text(0, "a"), Text(1, "x"), Text(0, "b"), Reasoning(2, "r")]
    assert deltas(events)[:4] == [
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "x"},
        {"content": "b"},
        {"role": "assistant", "reasoning_content": "r"},
    ]
    assert [choice["index"] for choice in whole(events)["choices"]] == [0, 1, 2]  # pyright: ignore


def test_a_seal_that_comes_unannounced_stands_with_its_words() -> None:
    events: list[Event] = [
        Reasoning(0, "a", part=2),
        Reasoning(0, "x", part=3),
        Reasoning(0, "b", part=2, signature="s"),
    ]
    assert deltas(events)[2] == {
        "reasoning_content": "b",
        "reasoning_details": [{"type": "reasoning.text", "text": "ab", "signature": "s", "index": 2}],
    }
    assert message(events)["reasoning_details"] == [
        {"type": "reasoning.text", "text": "ab", "signature": "s", "index": 2}
    ]


def test_encrypted_items_keep_their_ids() -> None:
    events: list[Event] = [
        Reasoning(0, "Plan", ReasoningKind.SUMMARY, 0, "", "rs_1", RESPONSES_FORMAT),
        Reasoning(0, "gAAA", ReasoningKind.ENCRYPTED, 0, "", "rs_1", RESPONSES_FORMAT),
    ]
    seal = {"id": "rs_1", "format": RESPONSES_FORMAT, "index": 0}
    details = [
        {"type": "reasoning.summary", "summary": "Plan", **seal},
        {"type": "reasoning.encrypted", "data": "gAAA", **seal},
    ]
    found = message(events)
    assert (found["reasoning_content"], found["reasoning_details"]) == ("Plan", details)
    streamed = [delta.get("reasoning_details") for delta in deltas(events)]  # pyright: ignore
    assert streamed[:2] == [[details[0]], [details[1]]]


def test_words_without_a_seal_have_no_details() -> None:
    events: list[Event] = [Reasoning(0, "a"), Reasoning(0, "b", ReasoningKind.INLINE_TAG, 1)]
    found = message(events)
    assert (found["reasoning_content"], "reasoning_details" in found) == ("ab", False)
    assert all("reasoning_details" not in delta for delta in deltas(events))  # pyright: ignore


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_call", "stop"),
        ("stop_sequence", "stop"),
        ("pause", "stop"),
        ("refusal", "content_filter"),
        ("vendor_word", "stop"),
    ],
)
def test_finish_reasons(reason: str, word: str) -> None:
    events: list[Event] = [Text(0, "x"), Finished(0, reason)]
    assert stream(events, about())[-1]["choices"][0]["finish_reason"] == word  # pyright: ignore
    assert whole(events)["choices"][0]["finish_reason"] == word  # pyright: ignore


def test_a_refusal_in_words_is_a_stop() -> None:
    events: list[Event] = [Refusal(0, "I "), Refusal(0, "can't."), Finished(0, "refusal")]
    last = stream(events, about())[-1]
    assert last["choices"][0]["finish_reason"] == "stop"  # pyright: ignore
    assert message(events)["refusal"] == "I can't."


def test_calls_end_a_reply_that_just_stopped() -> None:
    events: list[Event] = [CallDelta(0, 1 << 32, "", "f", "{}"), Finished(0, "stop")]
    choice = whole(events)["choices"][0]  # pyright: ignore
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"][0]["id"] == "call_0198abcd_0"
    assert deltas(events)[0] == {
        "role": "assistant",
        "tool_calls": [
            {
                "index": 0,
                "id": "call_0198abcd_0",
                "type": "function",
                "function": {"name": "f", "arguments": "{}"},
            }
        ],
    }


def test_a_call_keeps_its_thought_signature() -> None:
    events: list[Event] = [CallDelta(0, 0, "c", "f", "{", signature="Cv"), CallDelta(0, 0, "", "", "}")]
    extra = {"google": {"thought_signature": "Cv"}}
    assert message(events)["tool_calls"][0]["extra_content"] == extra  # pyright: ignore
    calls = [delta["tool_calls"][0] for delta in deltas(events) if "tool_calls" in delta]  # pyright: ignore
    assert [call.get("extra_content") for call in calls] == [extra, None]


CUSTOM = [{"type": "custom", "custom": {"name": "patch"}}, {"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize(
    ("arguments", "custom", "text"),
    [
        ('{"input": "*** Begin"}', False, "*** Begin"),
        ('{"other": 1}', False, '{"other": 1}'),
        ("not json", False, "not json"),
        ('{"input": "x"}', True, '{"input": "x"}'),
    ],
)
def test_a_freeform_tools_call_is_text_again(arguments: str, custom: bool, text: str) -> None:
    events: list[Event] = [
        CallDelta(0, 0, "c1", "patch", arguments[:4], custom),
        CallDelta(0, 1, "c2", "f", '{"input": "y"}'),
        CallDelta(0, 0, "", "", arguments[4:]),
        Finished(0, "tool_call"),
    ]
    of = about(tools=CUSTOM)
    call = {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": text}}
    body = json.loads(TRANSLATION.render_body(events, of))
    assert body["choices"][0]["message"]["tool_calls"][0] == call
    assert body["choices"][0]["message"]["tool_calls"][1]["type"] == "function"
    streamed = [call for d in deltas(events, of) for call in d.get("tool_calls", ())]  # pyright: ignore
    assert {"index": 0, **call} in streamed


def test_a_freeform_call_of_an_unknown_tool_is_a_function() -> None:
    events: list[Event] = [CallDelta(0, 0, "c1", "patch", "text", custom=True), Finished(0, "tool_call")]
    function = {"name": "patch", "arguments": '{"input":"text"}'}
    assert message(events)["tool_calls"][0]["function"] == function  # pyright: ignore
    assert deltas(events)[0]["tool_calls"][0]["function"] == function  # pyright: ignore


def test_a_call_without_a_name_is_still_sent() -> None:
    events: list[Event] = [CallDelta(0, 0, "c1", "", '{"a"'), CallDelta(0, 0, "", "f", ":1}")]
    function = {"name": "f", "arguments": '{"a":1}'}
    assert deltas(events)[0]["tool_calls"][0]["function"] == function  # pyright: ignore
    nameless = deltas(events[:1])[0]["tool_calls"][0]["function"]  # pyright: ignore
    assert nameless == {"name": "", "arguments": '{"a"'}


def test_the_legacy_form() -> None:
    of = about(functions=[{"name": "f"}])
    events: list[Event] = [
        CallDelta(0, 0, "c1", "f", '{"a"'),
        CallDelta(0, 0, "", "", ":1}"),
        CallDelta(0, 1, "c2", "f", "{}"),
        Finished(0, "tool_call"),
    ]
    assert deltas(events, of) == [
        {"role": "assistant", "function_call": {"name": "f", "arguments": '{"a"'}},
        {"function_call": {"arguments": ":1}"}},
        {},
    ]
    body = whole(events, of)["choices"][0]  # pyright: ignore
    assert body["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert body["finish_reason"] == "function_call"


def test_usage_only_for_those_who_asked() -> None:
    events: list[Event] = [Text(0, "x"), Finished(0, "stop"), SEEN]
    assert stream(events, about())[-1]["choices"] == []
    assert stream(events, about())[-1]["usage"] == USAGE
    assert all("usage" not in chunk for chunk in stream(events, about(include_usage=False)))
    assert all("usage" not in chunk for chunk in stream(events[:2], about()))
    assert "usage" not in whole(events[:2])


@pytest.mark.parametrize("events", [[], [Started("", "")], [Failed("x"), Unreadable("y")]])
def test_an_empty_reply_ends_as_one(events: list[Event]) -> None:
    chunks = stream(events, about())
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    ]
    assert whole(events)["model"] == chunks[0]["model"] == "alias"


def test_a_cut_reply_still_ends() -> None:
    events: list[Event] = [Text(0, "x"), Finished(0, "length"), Text(1, "y")]
    chunks = stream(events, about())
    assert chunks[-1]["choices"] == [{"index": 1, "delta": {}, "finish_reason": "stop"}]
