"""Denied tool calls taken out of OpenAI Responses, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response

from llm_proxy.chat.events import CallDelta, Finished, Frame, Text
from llm_proxy.wire.openai_responses.edit import edit_body, edit_frames
from llm_proxy.wire.openai_responses.reader import Reader
from llm_proxy.wire.openai_responses.reply import read_body
from llm_proxy.wire.sse import SseReader, read_one, render

FIXTURES = Path(__file__).parent.parent / "golden" / "openai_responses"
NOTE = "NOT EXECUTED: denied by rule exfil"
Denied = dict[tuple[int, int], str]
Json = dict[str, Any]


def stream(name: str) -> list[Frame]:
    reader = Reader()
    return [reader.read(sse) for sse in SseReader().feed((FIXTURES / f"{name}.sse").read_bytes())]


def split(frames: list[Frame]) -> tuple[list[Frame], list[Frame]]:
    """What flows, and what is held from the first call on."""
    first = next(at for at, f in enumerate(frames) if any(isinstance(e, CallDelta) for e in f.events))
    return frames[:first], frames[first:]


def edited(name: str, denied: Denied) -> bytes:
    before, held = split(stream(name))
    return b"".join([*(frame.raw for frame in before), *edit_frames(held, denied)])


def events(data: bytes) -> list[Json]:
    return [json.loads(sse.data) for sse in SseReader().feed(data)]


def whole(data: bytes) -> tuple[Response, list[Any]]:
    """The final response as the official SDK's helper has it, and the items it added up from the events."""
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=data)
    )
    http = httpx.Client(transport=transport)
    with (
        openai.OpenAI(api_key="x", base_url="http://x/v1", http_client=http, max_retries=0) as client,
        client.responses.stream(model="m", input="x") as incoming,
    ):
        done = [event.item for event in incoming if event.type == "response.output_item.done"]
        return incoming.get_final_response(), done


def text_of(response: Json) -> str:
    return "".join(p["text"] for i in response["output"] for p in i.get("content", []) if "text" in p)


def test_nothing_denied_is_the_same() -> None:
    body = (FIXTURES / "calls.json").read_bytes()
    assert edit_body(body, {}) is body
    assert edit_body(body, {(0, 0): NOTE, (0, 9): NOTE, (1, 2): NOTE}) is body
    assert edited("calls", {}) == (FIXTURES / "calls.sse").read_bytes()


@pytest.mark.parametrize(
    ("denied", "types"),
    [
        ({2}, ["reasoning", "message", "message", "function_call"]),
        ({3}, ["reasoning", "message", "function_call", "message"]),
        ({2, 3}, ["reasoning", "message", "message"]),
    ],
)
def test_a_message_stands_where_the_first_denied_call_was(denied: set[int], types: list[str]) -> None:
    notes = {(0, index): f"{NOTE} {index}" for index in denied}
    note = "\n\n".join(notes[key] for key in sorted(notes))
    body = edit_body((FIXTURES / "calls.json").read_bytes(), notes)
    out = edited("calls", notes)
    final = events(out)[-1]["response"]
    for response in (json.loads(body), final):
        assert [item["type"] for item in response["output"]] == types
        assert text_of(response).endswith("Checking both." + note)
        assert response["status"] == "completed"
    assert json.loads(body)["output"] == final["output"]
    for index, secret in ((2, b"get_weather"), (3, b"get_customer")):
        assert (secret in out) == (secret in body) == (index not in denied)
    assert Finished(0, "stop" if len(denied) == 2 else "tool_call") in read_body(body).events
    assert Text(0, note) in read_body(body).events


@pytest.mark.parametrize("denied", [{2}, {3}, {2, 3}, set[int]()])
def test_the_official_client_agrees_with_the_final_response(denied: set[int]) -> None:
    out = edited("calls", {(0, index): NOTE for index in denied})
    response, done = whole(out)
    plain = [item.to_dict() for item in response.output]
    for item in plain:
        item.pop("parsed_arguments", None)
        for part in item.get("content") or ():  # type: ignore[union-attr]
            part.pop("parsed", None)  # type: ignore[union-attr]
    assert [item.to_dict() for item in done] == plain
    for at, event in enumerate(events(out)):
        assert event["sequence_number"] == at
    added = [e["output_index"] for e in events(out) if e["type"] == "response.output_item.added"]
    assert added == list(range(len(response.output)))


def test_untouched_items_and_fields_stay_verbatim() -> None:
    source = (FIXTURES / "calls.json").read_bytes()
    body = edit_body(source, {(0, 2): NOTE})
    reasoning = source[
        source.index(b'{\n      "id": "rs_68a2"') : source.index(b',\n    {\n      "id": "msg_')
    ]
    assert reasoning in body
    assert b'"temperature":1.0' in body
    _, held = split(stream("calls"))
    first = next(at for at, frame in enumerate(held) if b"call_8Qw" in frame.raw)
    assert edit_frames(held, {(0, 3): NOTE})[:first] == [frame.raw for frame in held[:first]]


def test_a_typed_call_leaves_no_trace() -> None:
    out = edited("computer", {(0, 1): NOTE})
    response, done = whole(out)
    assert [item.type for item in done] == ["reasoning", "message"] == [i.type for i in response.output]
    assert b"call_Cu1" not in out.replace(b"msg_call_Cu1", b"")


def test_a_server_that_numbers_nothing() -> None:
    out = events(edited("llama_cpp", {(0, 1): NOTE}))
    assert all("output_index" not in e and "sequence_number" not in e for e in out)
    assert [item["type"] for item in out[-1]["response"]["output"]] == ["message", "message", "function_call"]
    assert "ls" not in json.dumps(out).replace("tool_calls", "").split('"name": "')[1]
    names = {e["item"].get("name") for e in out if "item" in e}
    assert names == {None, "cat"}
    deltas = [e["delta"] for e in out if e["type"] == "response.function_call_arguments.delta"]
    assert deltas == ['{"path":"a"}']


def frames(*data: Json) -> list[Frame]:
    reader = Reader()
    return [reader.read(read_one(render(json.dumps(event).encode()))) for event in data]


def call(number: int, **fields: Any) -> Json:
    return {
        "id": f"fc_{number}",
        "type": "function_call",
        "call_id": f"call_{number}",
        "name": f"tool_{number}",
        "arguments": "{}",
        **fields,
    }


def completed(*output: Mapping[str, Any]) -> Json:
    return {"type": "response.completed", "sequence_number": 9, "response": {"id": "r", "output": output}}


def test_a_call_of_nothing_but_the_final_response() -> None:
    out = edit_frames(frames(completed(call(0), call(1))), {(0, 1): NOTE})
    final = json.loads(read_one(out[-1]).data)
    assert len(out) == 7
    assert [item["type"] for item in final["response"]["output"]] == ["function_call", "message"]
    assert final["sequence_number"] == 15
    assert b"tool_1" not in b"".join(out)


def test_a_call_that_is_said_only_once_it_is_done() -> None:
    item = {"type": "response.output_item.done", "output_index": 0, "sequence_number": 8, "item": call(0)}
    out = edit_frames(frames(item, completed(call(0))), {(0, 0): NOTE})
    assert [json.loads(read_one(raw).data)["sequence_number"] for raw in out] == list(range(8, 15))
    assert b"tool_0" not in b"".join(out)


def test_the_final_response_may_list_calls_in_another_order() -> None:
    first = {"type": "response.output_item.added", "output_index": 0, "item": call(0)}
    second = {"type": "response.output_item.added", "output_index": 1, "item": call(1)}
    out = edit_frames(frames(first, second, completed(call(1), call(0))), {(0, 0): NOTE})
    final = json.loads(read_one(out[-1]).data)
    assert [item.get("name") for item in final["response"]["output"]] == ["tool_1", None]


def test_what_cannot_be_read_is_not_sent() -> None:
    held = frames({"type": "response.output_item.done", "output_index": 0, "item": call(0)}, completed())
    odd = Reader().read(read_one(b'data: {"type":\n\n'))
    done = Frame(b"data: [DONE]\n\n")
    out = edit_frames([*held, odd, done], {(0, 0): NOTE})
    assert odd.raw not in out
    assert out[-1] == done.raw


def test_a_note_without_a_call_id_has_an_id() -> None:
    body = json.dumps({"output": [{"type": "shell_call", "action": {}}]}).encode()
    (item,) = json.loads(edit_body(body, {(0, 0): NOTE}))["output"]
    assert item["id"] == "msg_denied"
