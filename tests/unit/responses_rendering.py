"""Replies written as OpenAI's Responses and checked by OpenAI's own client: shared by their tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from openai._types import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from llm_proxy.chat.events import Event, Started, Usage, UsageSeen
from llm_proxy.wire.dialect import About
from llm_proxy.wire.openai_responses.request import parse
from llm_proxy.wire.openai_responses.translation import TRANSLATION
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
