"""Which turn answers, and the bytes that it answers with. Also the in-process play of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from llm_proxy.scripted.model import (
    FaultKind,
    RequestError,
    ScriptedFault,
    ScriptedModel,
    ScriptedReply,
    ScriptedRequest,
    parse_request,
    play,
)
from llm_proxy.scripted.reply import STALL_S
from llm_proxy.scripted.script import parse_script


def request(*messages: dict[str, Any], **fields: Any) -> ScriptedRequest:
    body = {"model": "m", "messages": list(messages) or [{"role": "user", "content": "hi"}], **fields}
    return parse_request(json.dumps(body).encode())


def answer(turns: str, asked: ScriptedRequest | None = None) -> ScriptedReply:
    return ScriptedModel(parse_script(f"default: {{turns: [{turns}]}}")).answer(asked or request())


def chunks(reply: ScriptedReply) -> list[dict[str, Any]]:
    assert reply.frames[-1] == b"data: [DONE]\n\n"
    return [json.loads(frame.removeprefix(b"data: ")) for frame in reply.frames[:-1]]


USER = {"role": "user", "content": "please refund"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "crm_read", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "gold customer"}]}


@pytest.mark.parametrize(
    ("when", "matches"),
    [
        ("turn: 1", True),
        ("turn: 0", False),
        ("last_user_contains: refund", True),
        ("last_user_contains: hello", False),
        ("last_tool_contains: gold", True),
        ("last_assistant_contains: gold", False),
        ("has_tool_result: true", True),
        ("has_tool_result: false", False),
        ("tool_answered: crm_read", True),
        ("tool_answered: refund_create", False),
        ("stream: false", True),
        ("stream: true", False),
        ("model: m", True),
        ("model: other", False),
        ("turn: 1, has_tool_result: false", False),
    ],
)
def test_conditions(when: str, matches: bool) -> None:
    reply = answer(f"{{when: {{{when}}}, text: right}}, {{text: wrong}}", request(USER, CALL, RESULT))
    said = json.loads(reply.body)["choices"][0]["message"]["content"]
    assert said == ("right" if matches else "wrong")


def test_a_header_condition() -> None:
    turns = "{when: {header: {X-Key: a}}, text: right}, {text: wrong}"
    body = b'{"model":"m","messages":[]}'
    for headers, said in (({"x-key": "a"}, "right"), ({"X-KEY": "b"}, "wrong"), ({}, "wrong")):
        reply = answer(turns, parse_request(body, headers))
        assert json.loads(reply.body)["choices"][0]["message"]["content"] == said


def test_fail_times_counts_and_then_goes_on() -> None:
    model = ScriptedModel(parse_script("default: {turns: [{status: 500, fail_times: 2}, {text: fine}]}"))
    assert [model.answer(request()).status for _ in range(4)] == [500, 500, 200, 200]
    model.reset()
    assert model.answer(request()).status == 500


def test_fail_times_is_counted_for_each_model() -> None:
    turns = "{turns: [{status: 500, fail_times: 1}, {text: fine}]}"
    model = ScriptedModel(parse_script(f"models: {{m: {turns}, other: {turns}}}"))
    assert [model.answer(request(model=name)).status for name in ("m", "other", "m")] == [500, 500, 200]


def test_an_unknown_model_and_no_turn() -> None:
    model = ScriptedModel(parse_script("models: {a: {turns: [{when: {turn: 5}, text: x}]}}"))
    unknown, none = model.answer(request()), model.answer(request(model="a"))
    assert (unknown.status, json.loads(unknown.body)["error"]["code"]) == (404, "model_not_found")
    assert (none.status, json.loads(none.body)["error"]["code"]) == (400, "script_no_turn")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model":"m"}', b'{"model":"m","messages":[],"n":0}', b'{"model":"\xff"}']
)
def test_a_body_that_is_no_request(body: bytes) -> None:
    with pytest.raises(RequestError):
        parse_request(body)


FULL = """
{reasoning: Let me think., text: I look., finish: tool_calls,
 tool_calls: [{name: crm_read, arguments: {id: 7}}, {name: raw, arguments: '{"broken', id: call_x}]}
"""


def test_a_whole_reply_is_one_that_the_sdk_takes() -> None:
    reply = answer(FULL)
    parsed = ChatCompletion.model_validate_json(reply.body, strict=True)
    [choice] = parsed.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look."
    assert choice.message.model_extra == {"reasoning_content": "Let me think."}
    assert choice.message.tool_calls is not None
    functions = [c.function for c in choice.message.tool_calls if c.type == "function"]
    called = [(f.name, f.arguments) for f in functions]
    assert called == [("crm_read", '{"id":7}'), ("raw", '{"broken')]
    assert choice.message.tool_calls[1].id == "call_x"
    assert parsed.usage is not None
    assert parsed.usage.completion_tokens == -(-len('Let me think.I look.crm_read{"id":7}raw{"broken') // 4)
    assert parsed.usage.total_tokens == parsed.usage.prompt_tokens + parsed.usage.completion_tokens


def test_a_stream_is_role_then_deltas_then_finish_then_done() -> None:
    sent = chunks(answer(FULL, request(stream=True)))
    assert all(ChatCompletionChunk.model_validate(chunk) for chunk in sent)
    assert all("usage" not in chunk for chunk in sent)
    deltas = [chunk["choices"][0]["delta"] for chunk in sent]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "Let me think."
    assert "".join(d.get("content") or "" for d in deltas) == "I look."
    calls = [d["tool_calls"][0] for d in deltas if "tool_calls" in d]
    opening = [c for c in calls if "id" in c]
    assert [(c["index"], c["function"]["name"], c["function"]["arguments"]) for c in opening] == [
        (0, "crm_read", ""),
        (1, "raw", ""),
    ]
    for index, arguments in ((0, '{"id":7}'), (1, '{"broken')):
        pieces = [c["function"]["arguments"] for c in calls if c["index"] == index]
        assert len(pieces) > 2
        assert "".join(pieces) == arguments
    reasons = [c["choices"][0]["finish_reason"] for c in sent]
    assert reasons == [None] * (len(sent) - 1) + ["tool_calls"]
    assert deltas[-1] == {}


def test_stream_and_whole_agree() -> None:
    asked = {"stream_options": {"include_usage": True}}
    sent = chunks(answer(FULL, request(stream=True, **asked)))
    whole = json.loads(answer(FULL, request(stream=False, **asked)).body)
    assert sent[-1]["choices"] == []
    assert sent[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in sent[:-1])


def test_usage_given_partly_and_none() -> None:
    usage = json.loads(answer("{text: hi, usage: {input: 90, cached: 64}}").body)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (90, 1, 91)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 64
    assert "usage" not in json.loads(answer("{text: hi, usage: none}").body)
    asked = request(stream=True, stream_options={"include_usage": True})
    assert all(chunk["usage"] is None for chunk in chunks(answer("{text: hi, usage: none}", asked)))


@pytest.mark.parametrize("text", ["one two  three\n", " lead", "   ", "x", "a\n\nb"])
@pytest.mark.parametrize("deltas", ["", ", deltas: 3", ", deltas: 50"])
def test_pieces_join_to_the_text(text: str, deltas: str) -> None:
    sent = chunks(answer(f"{{text: {json.dumps(text)}{deltas}}}", request(stream=True)))
    pieces = [c["choices"][0]["delta"].get("content") for c in sent[1:-1]]
    assert "".join(pieces) == text
    assert all(pieces)
    if deltas == ", deltas: 3":
        assert len(pieces) == min(3, len(text))


def test_several_choices() -> None:
    turns = "{text: first, choices: [{text: second}, {text: third, finish: length}]}"
    whole = json.loads(answer(turns, request(n=4)).body)
    said = [(c["index"], c["message"]["content"], c["finish_reason"]) for c in whole["choices"]]
    assert said == [
        (0, "first", "stop"),
        (1, "second", "stop"),
        (2, "third", "length"),
        (3, "second", "stop"),
    ]
    sent = chunks(answer(turns, request(n=2, stream=True)))
    assert [c["choices"][0]["index"] for c in sent] == [0, 1] * 3


def test_vendor_fields_ride_along() -> None:
    turns = """{text: hi, extra: {service_tier: flex}, choice_extra: {logprobs: {content: []}},
                message_extra: {x: 1}}"""
    whole = json.loads(answer(turns).body)
    assert whole["service_tier"] == "flex"
    assert whole["choices"][0]["logprobs"] == {"content": []}
    assert whole["choices"][0]["message"]["x"] == 1
    sent = chunks(answer(turns, request(stream=True)))
    assert all(c["service_tier"] == "flex" for c in sent)
    assert sent[0]["choices"][0]["delta"]["x"] == 1


def test_the_same_request_gets_the_same_bytes() -> None:
    assert answer(FULL).body == answer(FULL).body
    assert json.loads(answer(FULL).body)["id"] != json.loads(answer(FULL, request(n=2)).body)["id"]


def test_an_error_with_its_headers() -> None:
    reply = answer("{status: 429, retry_after: 1.5, headers: {x-a: b}, error: {message: slow, code: rate}}")
    assert reply.status == 429
    assert dict(reply.headers) == {"content-type": "application/json", "x-a": "b", "retry-after": "1.5"}
    assert json.loads(reply.body)["error"] == {
        "message": "slow",
        "type": "server_error",
        "param": None,
        "code": "rate",
    }


def test_an_error_inside_the_stream() -> None:
    reply = answer("{text: half a, error: {type: overloaded_error}}", request(stream=True))
    assert json.loads(reply.frames[-1].removeprefix(b"data: "))["error"]["type"] == "overloaded_error"
    assert b"finish_reason" in reply.frames[1]
    assert not any(b'"finish_reason":"' in frame for frame in reply.frames)


def test_a_malformed_frame_and_a_malformed_body() -> None:
    frames = answer("{text: a b, malformed_after: 2}", request(stream=True)).frames
    with pytest.raises(ValueError, match=r"Invalid control|Unterminated"):
        json.loads(frames[2].removeprefix(b"data: "))
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(answer("{text: a b, malformed_after: 0}").body)


def test_a_truncated_stream_ends_without_its_end() -> None:
    reply = answer("{text: a b c d, truncate: true}", request(stream=True))
    assert reply.fault is None
    assert not any(b"[DONE]" in f or b'"stop"' in f for f in reply.frames)


async def played(reply: ScriptedReply) -> tuple[list[bytes], list[float], ScriptedFault | None]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    frames: list[bytes] = []
    try:
        async for frame in play(reply, sleep):
            frames.append(frame)
    except ScriptedFault as fault:
        return frames, waits, fault
    return frames, waits, None


async def test_play_keeps_the_pace() -> None:
    reply = answer("{text: a b, latency_s: 2, delta_s: 0.5}", request(stream=True))
    frames, waits, fault = await played(reply)
    assert frames == list(reply.frames)
    assert waits == [2] + [0.5] * (len(frames) - 1)
    assert fault is None


@pytest.mark.parametrize(("field", "kind"), [("cut_after", FaultKind.CUT), ("stall_after", FaultKind.STALL)])
@pytest.mark.parametrize("after", [0, 1, 3, 999])
@pytest.mark.parametrize("stream", [False, True])
async def test_play_breaks_off(field: str, kind: FaultKind, after: int, stream: bool) -> None:
    reply = answer(f"{{text: a b c d, {field}: {after}}}", request(stream=stream))
    frames, waits, fault = await played(reply)
    assert fault is not None
    assert fault.fault.kind is kind
    assert len(frames) == (min(after, len(reply.frames)) if stream else min(after, 1))
    assert waits == ([STALL_S] if kind is FaultKind.STALL else [])
    if not stream and after:
        assert frames[0] == reply.body[: len(frames[0])] != reply.body
