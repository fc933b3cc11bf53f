"""The golden matrix: what vendors are sent and callers get, to the byte, and as the vendors' SDKs see it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, cast

import openai
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, MessageCreateParams, RawMessageStreamEvent
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk, CompletionCreateParams
from openai.types.responses import Response, ResponseCreateParams, ResponseStreamEvent
from pydantic import BaseModel, ConfigDict, TypeAdapter

from llm_proxy.wire.seal import unwrap
from llm_proxy.wire.sse import SseFrame, SseReader
from tests.golden.matrix.cells import DIALECTS, FOLDER, SITUATIONS, Cell, ask, cells

ALL = list(cells())
TRANSLATED = [cell for cell in ALL if not cell.same]
SAME = [cell for cell in ALL if cell.same]
EVENTS: dict[str, TypeAdapter[Any]] = {
    "responses": TypeAdapter(ResponseStreamEvent),
    "messages": TypeAdapter(RawMessageStreamEvent),
}
WHOLE: dict[str, type[BaseModel]] = {"chat": ChatCompletion, "responses": Response, "messages": Message}
PARAMS: dict[str, Any] = {
    "chat": CompletionCreateParams,
    "responses": ResponseCreateParams,
    "messages": MessageCreateParams,
}
WITHOUT_ID = b'"role":"assistant","content":[{"type":"refusal",'
WITH_ID = b'"id":"msg_1","status":"completed",' + WITHOUT_ID
"""OpenAI takes an assistant's refusal without an id; its SDK's types don't."""


@pytest.mark.parametrize("cell", TRANSLATED, ids=str)
def test_the_vendor_is_sent_what_is_expected(cell: Cell) -> None:
    whole, streamed = (cell.sent(stream=stream) for stream in (False, True))
    assert (whole.body, streamed.body) == tuple(cell.path("sent.jsonl").read_bytes().splitlines())
    assert whole.dropped == streamed.dropped
    dropped = json.loads((FOLDER / cell.situation / "expected" / "dropped.json").read_bytes())
    assert list(whole.dropped) == dropped[f"{cell.caller}-{cell.vendor}"]


@pytest.mark.parametrize("cell", TRANSLATED, ids=str)
def test_a_stream_is_asked_for_and_nothing_else_changes(cell: Cell) -> None:
    whole, streamed = (json.loads(cell.sent(stream=stream).body) for stream in (False, True))
    assert streamed.pop("stream") is True
    if cell.vendor == "chat":
        assert streamed.pop("stream_options") == {"include_usage": True}
    assert whole.pop("stream", False) is False
    assert whole == streamed


@pytest.mark.parametrize("cell", TRANSLATED, ids=str)
def test_the_vendors_sdk_would_send_it(cell: Cell) -> None:
    for stream in (False, True):
        body = cell.sent(stream=stream).body
        assert_params(cell.vendor, body.replace(WITHOUT_ID, WITH_ID))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_callers_sdk_would_ask_it(situation: str, dialect: str) -> None:
    for stream in (False, True):
        assert_params(dialect, ask(situation, dialect, stream=stream))


@pytest.mark.parametrize("cell", TRANSLATED, ids=str)
def test_the_caller_gets_what_is_expected(cell: Cell) -> None:
    assert cell.got(stream=False) == cell.path("got.json").read_bytes()
    streamed = cell.path("got.sse").read_bytes()
    for size in (1, 61, 1 << 20):
        assert cell.got(stream=True, size=size) == streamed


@pytest.mark.parametrize("cell", TRANSLATED, ids=str)
def test_the_callers_sdk_takes_it_and_finds_the_same_streamed_and_whole(cell: Cell) -> None:
    whole = WHOLE[cell.caller].model_validate_json(cell.got(stream=False), strict=True)
    streamed = accumulated(cell.caller, cell.got(stream=True))
    assert meaning(streamed) == meaning(whole)


@pytest.mark.parametrize("cell", SAME, ids=str)
def test_the_same_dialect_passes(cell: Cell) -> None:
    for stream in (False, True):
        asked, sent = cell.ask(stream=stream), cell.sent(stream=stream).body
        assert b'"agent-model"' not in sent
        assert sent == asked.replace(b'"agent-model"', sent_model(sent), 1)
        assert cell.got(stream=stream, size=61) == cell.reply(stream=stream)


@pytest.mark.parametrize("cell", SAME, ids=str)
def test_a_vendors_stream_adds_up_to_its_body(cell: Cell) -> None:
    """The fixtures themselves: what a vendor says whole is what it says streamed."""
    whole = WHOLE[cell.vendor].model_validate_json(cell.reply(stream=False))
    assert meaning(accumulated(cell.vendor, cell.reply(stream=True))) == meaning(whole)


def test_every_file_has_its_cell() -> None:
    expected = {cell.path(ending) for cell in TRANSLATED for ending in ("sent.jsonl", "got.json", "got.sse")}
    expected |= {FOLDER / name / "expected" / "dropped.json" for name in SITUATIONS}
    assert {path for path in FOLDER.glob("*/expected/*") if path.is_file()} == expected


def sent_model(body: bytes) -> bytes:
    return json.dumps(json.loads(body)["model"]).encode()


@cache
def _params(dialect: str) -> TypeAdapter[Any]:
    return TypeAdapter(PARAMS[dialect], config=ConfigDict(arbitrary_types_allowed=True, extra="ignore"))


def assert_params(dialect: str, body: bytes) -> None:
    """The body's known keys are of the types that the SDK declares, down to the last item of each list."""
    consume(_params(dialect).validate_python(json.loads(body)))


def consume(value: Any) -> None:
    """Walks everything: pydantic checks the items of an `Iterable` only when they are asked for."""
    if isinstance(value, dict):
        for inner in cast("dict[str, Any]", value).values():
            consume(inner)
    elif hasattr(value, "__iter__") and not isinstance(value, str | bytes):
        for inner in value:
            consume(inner)


def accumulated(dialect: str, stream: bytes) -> BaseModel:
    """What the SDK makes of a stream, each of its events having the SDK's type."""
    reader = SseReader()
    frames = [frame for frame in (*reader.feed(stream), *reader.close()) if frame.data]
    match dialect:
        case "chat":
            return _chat(frames)
        case "responses":
            events = [EVENTS[dialect].validate_json(frame.data) for frame in frames]
            assert [event.sequence_number for event in events] == list(range(len(events)))
            return events[-1].response
        case _:
            return _messages(frames)


def _chat(frames: list[SseFrame]) -> ChatCompletion:
    assert frames[-1].data == b"[DONE]"
    state = ChatCompletionStreamState(input_tools=openai.omit, response_format=openai.omit)
    for frame in frames[:-1]:
        state.handle_chunk(_chunk(frame.data))
    return state.current_completion_snapshot


def _chunk(data: bytes) -> ChatCompletionChunk:
    """The SDK's types XX"""
    if b'"type":"custom"' in data:
        return ChatCompletionChunk.construct(**json.loads(data))
    return ChatCompletionChunk.model_validate_json(data)


def _messages(frames: list[SseFrame]) -> Message:
    snapshot = None
    buffers: dict[int, bytes] = {}
    for frame in frames:
        if b'"type":"ping"' not in frame.data:
            event = EVENTS["messages"].validate_json(frame.data)
            snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    assert snapshot is not None
    return Message.model_validate(snapshot.to_dict())


def meaning(reply: BaseModel) -> Any:
    """A reply without what its stream has no place for, or spells differently."""
    if not isinstance(reply, ChatCompletion):
        told = reply.model_dump(mode="json", warnings=False)
        for item in told.get("output", ()):
            if item["type"] == "function_call":
                item["arguments"] = json.loads(item["arguments"])
            if item["type"] == "reasoning":
                item |= {"id": "", "encrypted_content": _sealed(item)}
        return told
    (choice,) = reply.choices
    message = choice.message.model_dump(mode="json", warnings=False)
    calls = [
        (call["id"], call["type"], call[call["type"]]["name"], _input(call))
        for call in message.get("tool_calls") or ()
    ]
    thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
    usage = reply.usage.model_dump(exclude_none=True) if reply.usage else None
    said = (message["content"] or "", message["refusal"] or "", thoughts)
    return reply.id, reply.model, said, calls, choice.finish_reason, usage


def _sealed(item: dict[str, Any]) -> Any:
    """What the seal carries. A stream may name its item before it learns the vendor's id of it."""
    carried = unwrap(item["encrypted_content"] or "")
    return (
        [carried.id, carried.text, carried.signature]
        if carried
        else [item["id"], item["encrypted_content"], ""]
    )


def _input(call: dict[str, Any]) -> Any:
    return call["custom"]["input"] if call["type"] == "custom" else json.loads(call["function"]["arguments"])
