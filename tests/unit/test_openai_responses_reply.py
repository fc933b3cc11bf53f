"""OpenAI Responses: what odd, hostile and sparse replies mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.chat.events import (
    CallDelta,
    Ended,
    Event,
    Failed,
    Finished,
    Frame,
    Reasoning,
    ReasoningKind,
    Started,
    Text,
    Unreadable,
    Usage,
    UsageSeen,
)
from llm_proxy.chat.reply import Assembly, Reply
from llm_proxy.wire.openai_responses.reader import Reader
from llm_proxy.wire.openai_responses.reply import read_body, read_frame
from llm_proxy.wire.sse import SseFrame, read_one, render

Json = dict[str, Any]
ARGS = '{"path":"a"}'
CALL: Json = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "read", "arguments": ARGS}
OPEN: Json = {**CALL, "arguments": ""}
TEXT: Json = {"id": "msg_1", "type": "message", "content": [{"type": "output_text", "text": "hi"}]}


def sse(data: Json | bytes, event: str = "") -> SseFrame:
    return read_one(render(data if isinstance(data, bytes) else json.dumps(data).encode(), event))


def added(item: Json, index: int = 0) -> Json:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(item: Json, index: int = 0) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def delta(text: str, index: int = 0, id_: str = "fc_1", kind: str = "function_call_arguments") -> Json:
    return {"type": f"response.{kind}.delta", "item_id": id_, "output_index": index, "delta": text}


def written(text: str, index: int = 0) -> Json:
    return {
        "type": "response.function_call_arguments.done",
        "item_id": "fc_1",
        "output_index": index,
        "arguments": text,
    }


def completed(*output: Json, **fields: Any) -> Json:
    response = {"id": "resp_1", "model": "m", "status": "completed", "output": output, **fields}
    return {"type": "response.completed", "response": response}


def read_all(*events: Json) -> list[Event]:
    reader = Reader()
    return [event for data in events for event in reader.read(sse(data)).events]


def fold(*events: Json) -> Reply:
    assembly = Assembly()
    for event in read_all(*events):
        assembly.add(event)
    assert assembly.unreadable == ""
    return assembly.reply()


def calls(*events: Json) -> list[tuple[str, str, str]]:
    return [(call.id, call.name, call.arguments) for choice in fold(*events).choices for call in choice.calls]


def unreadable(*events: Json) -> bool:
    return any(isinstance(event, Unreadable) for event in read_all(*events))


READ = [("call_1", "read", ARGS)]


@pytest.mark.parametrize(
    "stream",
    [
        (added(OPEN), delta('{"path":'), delta('"a"}'), written(ARGS), done(CALL), completed(CALL)),
        (added(OPEN), delta(ARGS), completed(CALL)),
        (added(OPEN), delta(ARGS), done(CALL), completed()),
        (added(OPEN), written(ARGS), done(CALL), completed(CALL)),
        (added(OPEN), done(CALL), completed(CALL)),
        (added(CALL), done(CALL), completed(CALL)),
        (added(CALL), delta(ARGS), written(ARGS), done(CALL), completed(CALL)),
        (added(CALL), delta(ARGS[:5]), delta(ARGS[5:]), done(CALL)),
        (added({**CALL, "arguments": ARGS[:4]}), delta(ARGS[4:]), done(CALL)),
        (delta(ARGS), done(CALL), completed(CALL)),
        (done(CALL), completed(CALL)),
        (completed(CALL),),
        (added(TEXT), done(TEXT), completed(TEXT, CALL)),
        (added(OPEN), delta(ARGS), done({**CALL, "arguments": '{ "path": "\\u0061" }'}), completed(CALL)),
    ],
)
def test_a_call_counts_once_however_often_it_is_said(stream: tuple[Json, ...]) -> None:
    assert calls(*stream) == READ


OTHER: Json = {**CALL, "arguments": '{"path":"/etc/shadow"}'}
STREAM = (added(OPEN), delta(ARGS))


@pytest.mark.parametrize(
    "stream",
    [
        (*STREAM, written('{"path":"b"}')),
        (*STREAM, {**written(ARGS), "name": "send"}),
        (*STREAM, done(OTHER)),
        (*STREAM, done({**CALL, "name": "send"})),
        (*STREAM, done({**CALL, "call_id": "call_2"})),
        (*STREAM, done({**CALL, "namespace": "crm"})),
        (*STREAM, done({**CALL, "type": "custom_tool_call", "input": ARGS})),
        (*STREAM, done(TEXT)),
        (*STREAM, done(CALL), delta(" ")),
        (done(CALL), delta(ARGS)),
        (*STREAM, done({**CALL, "arguments": ""})),
        (*STREAM, done(CALL), completed(OTHER)),
        (*STREAM, done(CALL), completed({**CALL, "name": "send"})),
        (*STREAM, done(CALL), completed({**CALL, "type": "local_shell_call", "action": {"type": "exec"}})),
        (*STREAM, added({**OPEN, "id": "fc_2", "call_id": "call_2", "name": "send"})),
        (*STREAM, delta("x", kind="custom_tool_call_input")),
        (added(CALL), delta('{"path":"b"}'), done(CALL)),
        (added(OPEN), delta('{"n":1}'), done({**CALL, "arguments": '{"n":true}'})),
        (added(OPEN), delta('{"n":1}'), done({**CALL, "arguments": '{"n":1.0}'})),
        (added(OPEN), delta('{"n":1}'), done({**CALL, "arguments": '{"n":2,"n":1}'})),
        (added(TEXT), delta(ARGS)),
        (added(TEXT), done(CALL)),
        (added(OPEN), {**delta("x", 1), "item_id": "fc_1"}),
        ({"type": "response.function_call_arguments.delta", "delta": "x"},),
        ({"type": "response.in_progress", "response": {"output": [CALL]}},),
        ({"type": "response.created", "response": {"id": "r", "output": [CALL]}},),
        ({"type": "response.content_part.added", "output_index": 0, "item": CALL},),
        ({"response": {"output": [CALL]}},),
    ],
)
def test_what_a_client_could_run_instead_makes_the_stream_unreadable(stream: tuple[Json, ...]) -> None:
    assert unreadable(*stream)


def test_a_call_that_only_the_final_response_holds_is_judged_too() -> None:
    late: Json = {**CALL, "call_id": "call_9", "name": "send"}
    stream = (added(OPEN), delta(ARGS), done(CALL), completed(late, CALL))
    assert sorted(calls(*stream)) == [*READ, ("call_9", "send", ARGS)]


def test_two_calls_of_one_id_are_told_by_their_place() -> None:
    second = {**CALL, "id": "fc_2", "arguments": "{}"}
    stream = (
        added(OPEN),
        delta(ARGS),
        added({**second, "arguments": ""}, 1),
        delta("{}", 1, "fc_2"),
        completed(CALL, second),
    )
    assert calls(*stream) == [*READ, ("call_1", "read", "{}")]


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"response.output_item.added","output_index":0,"item":%b,"item":%b}',
        b'{"type":"response.completed","response":{"output":[%b]},"response":{"output":[%b]}}',
        b'{"type":"response.output_text.delta","delta":"x","type":"response.output_item.done","i":%b,"j":%b}',
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_repeated_key_beside_a_call_is_unreadable(data: bytes, *, turned: bool) -> None:
    pair = [json.dumps(CALL).encode(), json.dumps(TEXT).encode()]
    frame = read_frame(sse(data % tuple(reversed(pair) if turned else pair)))
    assert isinstance(frame.events[0], Unreadable)
    body = b'{"output":[%b],"output":[%b]}' % tuple(pair)
    assert isinstance(read_body(body).events[0], Unreadable)


def test_a_call_under_two_names_of_an_event_is_unreadable() -> None:
    said = {**completed(CALL), "type": "response.output_text.delta", "delta": "x"}
    assert isinstance(read_frame(sse(said, "response.completed")).events[0], Unreadable)
    assert read_frame(sse(said)).events == (Text(0, "x"),)


def test_an_escaped_call_is_seen() -> None:
    data = json.dumps({"type": "response.in_progress", "response": {"output": [CALL]}}).encode()
    escaped = data.replace(b"function_call", b"f\\u0075nction\\u005fcall").replace(b"call_1", b"c1")
    assert b"_call" not in escaped
    assert isinstance(read_frame(sse(escaped)).events[0], Unreadable)


def test_a_repeated_key_in_a_delta_is_unreadable() -> None:
    twice = (
        b'{"type":"response.function_call_arguments.delta","output_index":0,"delta":"a","del\\u0074a":"b"}'
    )
    assert isinstance(read_frame(sse(twice)).events[0], Unreadable)


SHELL: Json = {"id": "sh_1", "type": "shell_call", "call_id": "call_s", "action": {"commands": ["ls"]}}


@pytest.mark.parametrize(
    ("item", "meant"),
    [
        (SHELL, ("call_s", "shell", '{"commands":["ls"]}')),
        (
            {**SHELL, "type": "local_shell_call", "action": {"type": "exec", "command": ["ls"]}},
            ("call_s", "local_shell", '{"type":"exec","command":["ls"]}'),
        ),
        (
            {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file", "path": "a"}},
            ("c", "apply_patch", '{"type":"delete_file","path":"a"}'),
        ),
        (
            {"type": "computer_call", "call_id": "c", "action": None, "actions": [{"type": "wait"}]},
            ("c", "computer", '{"actions":[{"type":"wait"}]}'),
        ),
        (
            {"type": "computer_call", "call_id": "c", "action": {"type": "wait"}, "actions": []},
            ("c", "computer", '{"type":"wait"}'),
        ),
        (
            {"type": "tool_search_call", "call_id": "c", "execution": "client", "arguments": {"q": 1}},
            ("c", "tool_search", '{"q":1}'),
        ),
        (
            {"type": "teleport_call", "call_id": "c", "to": "x"},
            ("c", "teleport", '{"type":"teleport_call","call_id":"c","to":"x"}'),
        ),
        ({**CALL, "arguments": {"path": "a"}}, ("call_1", "read", '{"path": "a"}')),
    ],
)
def test_every_call_that_the_client_runs_is_one(item: Json, meant: tuple[str, str, str]) -> None:
    begun = {key: value for key, value in item.items() if key not in ("action", "operation", "to")}
    assert calls(added({**begun, "status": "in_progress"}), done(item), completed(item)) == [meant]
    assert calls(completed(item)) == [meant]
    events = read_body(json.dumps(completed(item)["response"]).encode()).events
    assert CallDelta(0, 0, *meant) in events
    assert Finished(0, "tool_call") in events


@pytest.mark.parametrize(
    "item",
    [
        {**SHELL, "environment": {"type": "container_reference", "container_id": "c"}},
        {"type": "tool_search_call", "execution": "server"},
        {"type": "program", "call_id": "c", "code": "1"},
        {"type": "compaction", "encrypted_content": "x"},
    ],
)
def test_what_the_provider_runs_is_no_call(item: Json) -> None:
    assert calls(added(item), done(item), completed(item)) == []


def test_a_stream_of_nothing_but_its_end_says_all_that_the_end_says() -> None:
    created: Json = {"type": "response.created", "response": {"id": "resp_1", "output": []}}
    (choice,) = fold(created, completed(TEXT, CALL)).choices
    assert (choice.text, choice.finish, len(choice.calls)) == ("hi", "tool_call", 1)
    heard: Json = {"type": "response.output_text.delta", "output_index": 0, "delta": "hi"}
    (choice,) = fold(created, heard, completed(TEXT)).choices
    assert choice.text == "hi"


def test_by_itself_a_frame_says_what_it_brings_first() -> None:
    def alone(data: Json) -> tuple[Event, ...]:
        return read_frame(sse(data)).events

    assert alone(added(OPEN, 3)) == (CallDelta(0, 3, "call_1", "read"),)
    assert alone(delta("x", 3)) == (CallDelta(0, 3, "", "", "x"),)
    assert alone(done(CALL, 3)) == (CallDelta(0, 3),)
    assert alone(written(ARGS, 3)) == (CallDelta(0, 3),)
    assert alone(done(SHELL, 3)) == (CallDelta(0, 3, "", "", '{"commands":["ls"]}'),)
    assert CallDelta(0, 1) in alone(completed(TEXT, CALL))
    placeless = alone({"type": "response.custom_tool_call_input.delta", "item_id": "c", "delta": "x"})
    assert isinstance(placeless[0], CallDelta)
    assert placeless[0].index > 1 << 32
    assert placeless[0].custom


@pytest.mark.parametrize(
    ("fields", "finish"),
    [
        ({"status": "completed"}, "stop"),
        ({"status": "cancelled"}, "cancelled"),
        ({"status": "incomplete", "incomplete_details": None}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
    ],
)
def test_why_it_ended(fields: Json, finish: str) -> None:
    assert read_all(completed(TEXT, **fields))[-2:] == [Finished(0, finish), Ended()]


def test_usage_counts_reasoning_that_was_left_out() -> None:
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 5,
        "total_tokens": 22,
    }
    seen = UsageSeen(Usage(input=10, output=12, cached=4, cache_write=2, reasoning=7))
    assert seen in read_all(completed(usage=usage))


@pytest.mark.parametrize(
    ("data", "failed"),
    [
        (
            {"type": "error", "code": "server_error", "message": "Oh", "param": None, "sequence_number": 3},
            Failed("Oh", "server_error"),
        ),
        ({"type": "error", "error": {"message": "Oh", "code": "x"}}, Failed("Oh", "x")),
        ({"error": {"message": "Oh", "code": 502}}, Failed("Oh", "502")),
        (completed(status="failed", error={"code": "x", "message": "Oh"}), Failed("Oh", "x")),
        (completed(status="failed"), Failed("The upstream reported a failed response resp_1")),
    ],
)
def test_failures(data: Json, failed: Failed) -> None:
    events = read_frame(sse(data)).events
    assert events[-1] == failed
    assert not any(isinstance(event, (Finished, Ended)) for event in events)


def test_an_error_body_is_a_failure() -> None:
    body = b'{"error":{"message":"No","type":"server_error","param":null,"code":null}}'
    assert read_body(body).events == (Failed("No", "server_error"),)


@pytest.mark.parametrize(
    "data",
    [b"[1]", b"nope", b'{"type":', b'{"type":"response.completed"}', b"{" * 99_999, b'{"type":"\xff"}'],
)
def test_what_cannot_be_read_is_unreadable(data: bytes) -> None:
    assert isinstance(Reader().read(sse(data)).events[-1], Unreadable)
    assert isinstance(read_body(data).events[-1], Unreadable)


def test_what_means_nothing() -> None:
    for raw in (b": ping\n\n", b"\n", b"data: \n\n"):
        assert read_frame(read_one(raw)) == Frame(raw, inert=True)
    assert read_frame(sse(b"[DONE]")).events == ()
    for kind in ("response.queued", "keepalive", "response.web_search_call.searching", "response.new.thing"):
        assert read_frame(sse({"type": kind, "response": {"id": "r"}, "delta": {}})).events == ()


def test_a_truncated_frame_is_never_read() -> None:
    raw = render(json.dumps(completed(TEXT)).encode())
    assert isinstance(read_frame(SseFrame(raw, "", raw[6:-2], truncated=True)).events[0], Unreadable)


def test_words_about_calls_are_words() -> None:
    said: Json = {"type": "response.output_text.delta", "delta": 'Use "function_call" \u00e9 "type"'}
    assert read_frame(sse(said)).events == (Text(0, said["delta"]),)


def test_parts_of_a_summary_stand_apart() -> None:
    part: Json = {"type": "response.reasoning_summary_part.added", "item_id": "rs", "output_index": 2}
    assert read_all({**part, "summary_index": 0}) == []
    assert read_all({**part, "summary_index": 1}) == [Reasoning(0, "\n\n", ReasoningKind.SUMMARY, 2)]


def test_a_response_is_named_by_its_first_event() -> None:
    created = {"type": "response.created", "response": {"id": "resp_1", "model": "m", "output": []}}
    assert read_all(created) == [Started("resp_1", "m")]
