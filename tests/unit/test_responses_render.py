"""Replies written as OpenAI's Responses, read by OpenAI's own client: its types, its accumulator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI
from openai._types import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
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
    Usage,
    UsageSeen,
)
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.dialect import About
from llm_proxy.wire.openai_responses.request import parse
from llm_proxy.wire.openai_responses.translation import TRANSLATION
from llm_proxy.wire.seal import unwrap
from llm_proxy.wire.sse import SseReader

CALL_ID = "0198c0de-0000-7000-8000-000000000001"
STEM = CALL_ID.replace("-", "")
USAGE = UsageSeen(Usage(input=20, output=9, cached=8, cache_write=2, reasoning=4))
START = Started("chatcmpl-upstream", "deepseek-reasoner")

_event: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def about(**body: Any) -> About:
    request = parse(json.dumps({"model": "smart", "input": "Hi", **body}, indent=2).encode())
    return About(call_id=CALL_ID, model="smart", created=1_790_000_000, request=request)


def stream(events: Sequence[Event], of: About) -> list[dict[str, Any]]:
    """A stream's data, each event alone, checked against the client's types."""
    renderer = TRANSLATION.renderer(of)
    raw = b"".join([*[renderer.render([event]) for event in events], renderer.close()])
    frames = SseReader().feed(raw)
    assert b"".join([frame.raw for frame in frames]) == raw
    found = [json.loads(frame.data) for frame in frames]
    assert [data["type"] for data in found] == [frame.event for frame in frames]
    assert [data["sequence_number"] for data in found] == list(range(len(found)))
    for data in found:
        _event.validate_python(data)
    return found


def replies(events: Sequence[Event], **body: Any) -> dict[str, Any]:
    """The response, which has to be the same whole, at the end of a stream, and put together from it."""
    of = about(**body)
    whole = json.loads(TRANSLATION.render_body(events, of))
    Response.model_validate(whole)
    found = stream(events, of)
    assert found[-1]["response"] == whole
    done = [data["item"] for data in found if data["type"] == "response.output_item.done"]
    assert done == whole["output"]
    _accumulated(found, whole)
    return whole


def _accumulated(found: Sequence[dict[str, Any]], whole: dict[str, Any]) -> None:
    """What OpenAI's client puts together from the deltas alone."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    for data in found:
        state.handle_event(_event.validate_python(data))
    snapshot: Any = getattr(state, "_ResponseStreamState__current_snapshot")  # noqa: B009
    assert len(snapshot.output) == len(whole["output"])
    for got, item in zip(snapshot.output, whole["output"], strict=True):
        assert got.id == item["id"]
        if item["type"] == "message":
            texts = [part.text for part in got.content if part.type == "output_text"]
            assert texts == [part["text"] for part in item["content"] if part["type"] == "output_text"]
        elif item["type"] == "function_call":
            assert got.arguments == item["arguments"]


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


class TestReasoning:
    def test_its_own_words(self) -> None:
        events = [
            Reasoning(0, "Hm", ReasoningKind.RAW),
            Reasoning(0, ".", ReasoningKind.INLINE_TAG),
            Text(0, "x"),
        ]
        item = replies(events)["output"][0]
        assert item["summary"] == []
        assert item["content"] == [{"type": "reasoning_text", "text": "Hm."}]
        assert [data["type"] for data in stream(events, about())][2:9] == [
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
        ]

    def test_openais_own_seal_goes_under_its_own_id(self) -> None:
        item = replies(
            [
                Reasoning(0, "A.", ReasoningKind.SUMMARY, id="rs_up", format=RESPONSES_FORMAT),
                Reasoning(0, "gAAA", ReasoningKind.ENCRYPTED, id="rs_up", format=RESPONSES_FORMAT),
            ]
        )["output"][0]
        assert (item["id"], item["encrypted_content"]) == ("rs_up", "gAAA")

    def test_openais_seal_whose_id_came_late_keeps_that_id(self) -> None:
        events = [
            Reasoning(0, "A.", ReasoningKind.SUMMARY),
            Reasoning(0, "gAAA", ReasoningKind.ENCRYPTED, id="rs_up", format=RESPONSES_FORMAT),
        ]
        found = stream(events, about())
        item = next(data["item"] for data in found if data["type"] == "response.output_item.done")
        assert item["id"] == f"rs_{STEM}_0"
        assert unwrap(item["encrypted_content"]) == ReasoningPart(
            kind=ReasoningKind.ENCRYPTED, text="gAAA", id="rs_up", format=RESPONSES_FORMAT
        )

    def test_a_signature_travels_with_its_words(self) -> None:
        item = replies(
            [
                Reasoning(0, "Hm", ReasoningKind.RAW, 3, format=ANTHROPIC_FORMAT),
                Reasoning(0, ".", ReasoningKind.RAW, 3),
                Reasoning(0, "", ReasoningKind.RAW, 3, signature="EqoB"),
            ]
        )["output"][0]
        assert item["content"] == [{"type": "reasoning_text", "text": "Hm."}]
        assert unwrap(item["encrypted_content"]) == ReasoningPart(
            kind=ReasoningKind.RAW, text="Hm.", signature="EqoB", format=ANTHROPIC_FORMAT
        )

    def test_parts_are_items(self) -> None:
        output = replies(
            [
                Reasoning(0, "Emw", ReasoningKind.REDACTED, 0, format=ANTHROPIC_FORMAT),
                Reasoning(0, "", ReasoningKind.RAW, 1, signature="EqoB", format=ANTHROPIC_FORMAT),
                Text(0, "Hi"),
            ]
        )["output"]
        sealed = [unwrap(item["encrypted_content"]) for item in output[:2]]
        assert sealed == [
            ReasoningPart(kind=ReasoningKind.REDACTED, text="Emw", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.RAW, signature="EqoB", format=ANTHROPIC_FORMAT),
        ]
        assert [item["id"] for item in output] == [f"rs_{STEM}_0", f"rs_{STEM}_1", f"msg_{STEM}_2"]

    def test_a_calls_signature_goes_before_it(self) -> None:
        before, call = replies([CallDelta(0, 0, "c1", "w", "{}", signature="CiQB")])["output"]
        assert unwrap(before["encrypted_content"]) == ReasoningPart(
            kind=ReasoningKind.ENCRYPTED, signature="CiQB", id="c1", format=GEMINI_FORMAT
        )
        assert (call["id"], call["call_id"]) == (f"fc_{STEM}_1", "c1")

    def test_what_follows_a_call_keeps_its_place(self) -> None:
        output = replies(
            [
                Reasoning(0, "1", part=0),
                CallDelta(0, 0, "c1", "w", "{"),
                Reasoning(0, "2", part=1),
                Text(0, "then"),
                CallDelta(0, 0, "", "", "}"),
                CallDelta(0, 1, "c2", "w", "{}"),
            ]
        )["output"]
        assert [item["type"] for item in output] == [
            "reasoning",
            "function_call",
            "reasoning",
            "message",
            "function_call",
        ]


PATCH = {"type": "custom", "name": "apply_patch"}
CRM = {
    "type": "namespace",
    "name": "crm",
    "description": "",
    "tools": [{"type": "function", "name": "get_customer"}, {"type": "custom", "name": "query"}],
}


class TestTools:
    def call(self, name: str, arguments: str, *, custom: bool = False, **body: Any) -> dict[str, Any]:
        events = [START, CallDelta(0, 0, "c1", name, arguments, custom), Finished(0, "tool_call")]
        [item] = replies(events, **({"tools": [PATCH, CRM]} | body))["output"]
        return item

    @pytest.mark.parametrize(
        ("arguments", "custom", "given"),
        [
            ('{"input":"*** Begin\\n"}', False, "*** Begin\n"),
            ('{"input":"a","b":1}', False, '{"input":"a","b":1}'),
            ('{"input":7}', False, '{"input":7}'),
            ("not json", False, "not json"),
            ("", False, ""),
            ('{"input":"kept"}', True, '{"input":"kept"}'),
        ],
    )
    def test_a_freeform_tools_call_is_text_again(self, arguments: str, custom: bool, given: str) -> None:
        assert self.call("apply_patch", arguments, custom=custom) == {
            "id": f"ctc_{STEM}_0",
            "type": "custom_tool_call",
            "status": "completed",
            "input": given,
            "call_id": "c1",
            "name": "apply_patch",
        }

    def test_its_events(self) -> None:
        events = [START, CallDelta(0, 0, "c1", "apply_patch", '{"input":"x"}')]
        assert [data["type"] for data in stream(events, about(tools=[PATCH]))][3:5] == [
            "response.custom_tool_call_input.delta",
            "response.custom_tool_call_input.done",
        ]

    def test_a_namespaces_calls_get_its_name_back(self) -> None:
        item = self.call("crm__get_customer", "{}")
        assert (item["type"], item["namespace"], item["name"]) == ("function_call", "crm", "get_customer")
        item = self.call("crm__query", '{"input":"x"}')
        assert (item["type"], item["namespace"], item["input"]) == ("custom_tool_call", "crm", "x")

    def test_tools_declared_in_the_middle(self) -> None:
        added = {"type": "additional_tools", "role": "developer", "tools": [PATCH]}
        item = self.call(
            "apply_patch", '{"input":"x"}', tools=None, input=[{"role": "user", "content": "Hi"}, added]
        )
        assert item["type"] == "custom_tool_call"

    def test_a_call_without_an_id_gets_one(self) -> None:
        [item] = replies([CallDelta(0, 0, "", "w", "{}")])["output"]
        assert item["call_id"] == f"call_{STEM}_0"


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


EVENTS: list[Event] = [
    START,
    Reasoning(0, "Hm.", ReasoningKind.RAW, signature="Eq", format=ANTHROPIC_FORMAT),
    Text(0, "Zürich — "),
    Text(0, "\u2028ok"),
    CallDelta(0, 0, "c1", "get_weather", '{"city":"Bern"}'),
    Finished(0, "tool_call"),
    USAGE,
    Ended(),
]


def _streamed(request: httpx.Request) -> httpx.Response:
    renderer = TRANSLATION.renderer(about())
    raw = renderer.render(EVENTS) + renderer.close()
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=raw, request=request)


def _whole(request: httpx.Request) -> httpx.Response:
    raw = TRANSLATION.render_body(EVENTS, about())
    return httpx.Response(200, headers={"content-type": "application/json"}, content=raw, request=request)


def _check(response: Any) -> None:
    assert response.output_text == "Zürich — \u2028ok"
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    assert response.output[2].arguments == '{"city":"Bern"}'
    assert response.usage.output_tokens_details.reasoning_tokens == 4


def test_openais_client_reads_a_whole_reply() -> None:
    with OpenAI(api_key="k", http_client=httpx.Client(transport=httpx.MockTransport(_whole))) as client:
        _check(client.responses.create(model="smart", input="Hi"))


def test_openais_client_reads_a_stream() -> None:
    with (
        OpenAI(api_key="k", http_client=httpx.Client(transport=httpx.MockTransport(_streamed))) as client,
        client.responses.stream(model="smart", input="Hi") as found,
    ):
        deltas = [event.delta for event in found if event.type == "response.output_text.delta"]
        assert deltas == ["Zürich — ", "\u2028ok"]
        _check(found.get_final_response())


async def test_openais_asynchronous_client_reads_a_stream() -> None:
    http = httpx.AsyncClient(transport=httpx.MockTransport(_streamed))
    async with AsyncOpenAI(api_key="k", http_client=http) as client:
        events = [event async for event in await client.responses.create(model="m", input="Hi", stream=True)]
    last = events[-1]
    assert last.type == "response.completed"
    _check(last.response)


class TestSentBack:
    """What a caller sends back of a reply is what the model's vendor gave, whoever that is."""

    def again(self, events: Sequence[Event]) -> tuple[Any, ...]:
        output = replies(events)["output"]
        body = json.dumps({"model": "smart", "input": [{"role": "user", "content": "Hi"}, *output]})
        return TRANSLATION.read_prompt(parse(body.encode())).messages[1].parts

    @pytest.mark.parametrize(
        "thought",
        [
            ReasoningPart(kind=ReasoningKind.RAW, text="Hm.", signature="EqoB", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.SUMMARY, text="Hm.", signature="EqoB", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.RAW, signature="EqoB", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.REDACTED, text="Emw", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="xyz", id="r1", format="xai-responses-v1"),
            ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="gAAA", id="rs_up", format=RESPONSES_FORMAT),
            ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="gAAA", format=RESPONSES_FORMAT),
        ],
    )
    def test_sealed_reasoning(self, thought: ReasoningPart) -> None:
        piece = Reasoning(
            0, thought.text, thought.kind, signature=thought.signature, id=thought.id, format=thought.format
        )
        [found, _] = self.again([piece, Text(0, "So.")])
        assert found.thought == thought

    def test_words_beside_a_seal_share_its_id(self) -> None:
        sealed = Reasoning(0, "gAAA", ReasoningKind.ENCRYPTED, id="rs_up", format=RESPONSES_FORMAT)
        words = Reasoning(0, "A.", ReasoningKind.SUMMARY, id="rs_up", format=RESPONSES_FORMAT)
        summary, seal = [part.thought for part in self.again([words, sealed])]
        assert (summary.text, summary.id, summary.format) == ("A.", "rs_up", RESPONSES_FORMAT)
        assert (seal.text, seal.id, seal.format) == ("gAAA", "rs_up", RESPONSES_FORMAT)

    def test_calls_with_their_signatures(self) -> None:
        events = [
            CallDelta(0, 0, "c1", "w", "{}", signature="CiQB"),
            CallDelta(0, 1, "c2", "w", "{}"),
        ]
        first, second = self.again(events)
        assert (first.id, first.signature, second.id, second.signature) == ("c1", "CiQB", "c2", "")
