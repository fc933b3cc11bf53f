"""The scripted vendor as Anthropic: what it writes is what the SDK takes, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from llm_proxy.scripted.model import Dialect, RequestError, ScriptedModel, ScriptedReply, parse_request
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.seals import Seal, is_ours, is_signed, sealed

HEADERS = {"anthropic-version": "2023-06-01"}
USER: dict[str, Any] = {"role": "user", "content": "Where is my order?"}
THINK = {"type": "enabled", "budget_tokens": 1024}
EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
FULL = """
{reasoning: Let me think., redacted: hidden, text: I look.,
 tool_calls: [{name: crm_read, arguments: {id: 7}}, {name: raw, arguments: '{"a": [1,  2]}', id: toolu_x}],
 server_tools: [{query: tank, urls: ["https://a.example"]}],
 usage: {input: 100, cached: 60, cache_write: 10, output: 40, reasoning: 12}}
"""


def body(*messages: dict[str, Any], **fields: Any) -> bytes:
    asked = {"model": "m", "max_tokens": 4096, "messages": list(messages) or [USER], **fields}
    return json.dumps({name: value for name, value in asked.items() if value is not None}).encode()


def answer(turns: str, *messages: dict[str, Any], **fields: Any) -> ScriptedReply:
    request = parse_request(body(*messages, **fields), HEADERS, Dialect.MESSAGES)
    return ScriptedModel(parse_script(f"default: {{turns: [{turns}]}}")).answer(request)


def events(reply: ScriptedReply) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for frame in reply.frames:
        name, data = frame.decode().removesuffix("\n\n").split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def accumulated(reply: ScriptedReply) -> Message:
    """What the SDK's own accumulator makes of the stream."""
    snapshot: Any = None
    arguments: dict[int, bytes] = {}
    for event in events(reply):
        if event["type"] != "ping":
            parsed = EVENTS.validate_python(event)
            snapshot = accumulate_event(event=parsed, current_snapshot=snapshot, json_bufs=arguments)
    return snapshot


def test_a_whole_reply_is_one_that_the_sdk_takes() -> None:
    reply = answer(FULL, thinking=THINK)
    message = Message.model_validate_json(reply.body)
    assert [block.type for block in message.content] == [
        "thinking",
        "redacted_thinking",
        "server_tool_use",
        "web_search_tool_result",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert message.stop_reason == "tool_use"
    thinking, redacted = message.content[0], message.content[1]
    assert thinking.type == "thinking"
    assert redacted.type == "redacted_thinking"
    assert is_signed(thinking.thinking, thinking.signature)
    assert is_ours(Seal.REDACTED, redacted.data)
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (
        30,
        60,
        10,
    )
    assert usage.output_tokens == 40
    assert usage.output_tokens_details is not None
    assert usage.output_tokens_details.thinking_tokens == 12
    assert dict(reply.headers)["request-id"].startswith("req_")


def without_ids(block: dict[str, Any]) -> dict[str, Any]:
    """Ids follow from the request's bytes, in which stream and whole differ."""
    return {name: value for name, value in block.items() if name not in ("id", "tool_use_id")}


@pytest.mark.parametrize("deltas", ["", "deltas: 3, "])
def test_stream_and_whole_agree(deltas: str) -> None:
    turn = FULL.replace("{reasoning", f"{{{deltas}reasoning", 1)
    whole = Message.model_validate_json(answer(turn, thinking=THINK).body)
    streamed = accumulated(answer(turn, thinking=THINK, stream=True))
    said = [[without_ids(block.model_dump()) for block in m.content] for m in (streamed, whole)]
    assert said[0] == said[1]
    assert (streamed.stop_reason, streamed.model) == (whole.stop_reason, whole.model)
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert streamed.usage.input_tokens == whole.usage.input_tokens


def test_the_order_of_events() -> None:
    sent = events(answer("{reasoning: a b, text: c, usage: {output: 7}}", thinking=THINK, stream=True))
    kinds = [e["delta"]["type"] if e["type"] == "content_block_delta" else e["type"] for e in sent]
    assert kinds == [
        "message_start",
        "content_block_start",
        "ping",
        "thinking_delta",
        "thinking_delta",
        "signature_delta",
        "content_block_stop",
        "content_block_start",
        "text_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert sent[0]["message"]["content"] == []
    assert sent[0]["message"]["usage"]["output_tokens"] == 1
    assert sent[-2]["usage"]["output_tokens"] == 7


def test_arguments_are_streamed_as_the_script_spells_them() -> None:
    sent = events(answer("{tool_calls: [{name: raw, arguments: '{\"broken'}]}", stream=True))
    pieces = [e["delta"]["partial_json"] for e in sent if e["type"] == "content_block_delta"]
    assert pieces[0] == ""
    assert "".join(pieces) == '{"broken'


@pytest.mark.parametrize(
    ("turn", "reason", "sequence"),
    [
        ("text: a", "end_turn", None),
        ("text: a, finish: length", "max_tokens", None),
        ("text: a, finish: content_filter", "refusal", None),
        ("text: a, finish: pause_turn", "pause_turn", None),
        ("refusal: I can't", "refusal", None),
        ("text: a, stop_sequence: END", "stop_sequence", "END"),
        ("tool_calls: [{name: x}]", "tool_use", None),
    ],
)
def test_stop_reasons(turn: str, reason: str, sequence: str | None) -> None:
    whole = Message.model_validate_json(answer(f"{{{turn}}}").body)
    streamed = accumulated(answer(f"{{{turn}}}", stream=True))
    assert {(m.stop_reason, m.stop_sequence) for m in (whole, streamed)} == {(reason, sequence)}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("thinking", "turn", "words"),
    [
        (None, "reasoning: a, redacted: b, text: c", None),
        ({"type": "disabled"}, "reasoning: a, text: c", None),
        ({"type": "adaptive"}, "reasoning: a, text: c", "a"),
        ({"type": "adaptive"}, "tool_calls: [{name: x}]", None),
        (THINK, "tool_calls: [{name: x}]", ""),
        ({**THINK, "display": "omitted"}, "reasoning: a, text: c", ""),
    ],
)
def test_it_thinks_where_it_is_asked_to(thinking: Any, turn: str, words: str | None, stream: bool) -> None:
    reply = answer(f"{{{turn}}}", thinking=thinking, stream=stream)
    message = accumulated(reply) if stream else Message.model_validate_json(reply.body)
    said = [block.thinking for block in message.content if block.type == "thinking"]
    assert said == ([] if words is None else [words])
    assert all(block.type != "redacted_thinking" for block in message.content)


def loop(*blocks: dict[str, Any], after: tuple[dict[str, Any], ...] | None = None) -> list[dict[str, Any]]:
    call = {"type": "tool_use", "id": "toolu_1", "name": "crm_read", "input": {}}
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "gold customer"}
    return [
        USER,
        {"role": "assistant", "content": [*blocks, call]},
        {"role": "user", "content": [*((result,) if after is None else after)]},
    ]


def thought(text: str, signature: str | None = None) -> dict[str, Any]:
    seal = sealed(Seal.SIGNATURE, text) if signature is None else signature
    return {"type": "thinking", "thinking": text, "signature": seal}


REDACTED = {"type": "redacted_thinking", "data": sealed(Seal.REDACTED, "x")}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1"}
TEXT = {"type": "text", "text": "and?"}


@pytest.mark.parametrize(
    ("blocks", "thinking"),
    [
        ((thought("hm"),), THINK),
        ((thought(""),), THINK),
        ((REDACTED,), THINK),
        ((), {"type": "adaptive"}),
        ((), None),
        ((thought("hm"),), None),
    ],
)
def test_a_tool_loop_goes_on(blocks: Any, thinking: Any) -> None:
    when = "when: {turn: 1, tool_answered: crm_read, last_tool_contains: gold, has_tool_result: true}"
    reply = answer(f"{{{when}, text: right}}, {{text: wrong}}", *loop(*blocks), thinking=thinking)
    assert json.loads(reply.body)["content"][0]["text"] == "right"


@pytest.mark.parametrize(
    ("fields", "messages", "says"),
    [
        ({"max_tokens": None}, [], r"^max_tokens: Field required$"),
        ({"max_tokens": 0}, [], r"^max_tokens: Input should be"),
        ({"model": None}, [], "model"),
        ({}, [{"role": "assistant", "content": "hi"}], 'first message must use the "user" role'),
        ({}, [{"role": "system", "content": "hi"}], 'Unexpected role "system"'),
        ({}, loop()[:2], r"^messages\.1: `tool_use` ids were found without `tool_result` blocks.*toolu_1"),
        ({}, loop(after=(TEXT,)), r"^messages\.1: `tool_use` ids were found without"),
        ({}, loop(after=(TEXT, RESULT)), r"^messages\.1: `tool_use` ids were found without"),
        ({}, [{"role": "user", "content": [RESULT]}], r"^messages\.0\.content\.0: unexpected `tool_use_id`"),
        ({"thinking": THINK}, loop(), r"^messages\.1\.content\.0\.type: Expected `thinking` or .*`tool_use`"),
        ({"thinking": THINK}, loop(TEXT), r"^messages\.1\.content\.0\.type: Expected .*found `text`"),
        ({"thinking": {"type": "enabled"}}, [], "budget_tokens: Field required"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10}}, [], "greater than or equal to 1024"),
        ({"thinking": THINK, "max_tokens": 1024}, [], "must be greater than `thinking.budget_tokens`"),
        ({"thinking": THINK, "temperature": 0.5}, [], "may only be set to 1"),
        ({"thinking": THINK, "tool_choice": {"type": "any"}}, [], "forces tool use"),
        (
            {},
            loop(thought("other", sealed(Seal.SIGNATURE, "hm"))),
            r"^messages\.1\.content\.0: Invalid `signature` in `thinking` block$",
        ),
        ({}, loop(thought("hm", "EqoBforeign")), r"^messages\.1\.content\.0: Invalid `signature`"),
        ({}, loop({"type": "thinking", "thinking": "hm"}), "signature: Field required"),
        ({}, loop({"type": "redacted_thinking", "data": "Emw"}), "Invalid `data` in `redacted_thinking`"),
    ],
)
def test_refusals(fields: dict[str, Any], messages: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        parse_request(body(*messages, **fields), HEADERS, Dialect.MESSAGES)


def test_no_messages_no_json_and_no_version() -> None:
    for raw in (body(messages=[]), b"{", b'{"model":"\xff"}', b"[]"):
        with pytest.raises(RequestError):
            parse_request(raw, HEADERS, Dialect.MESSAGES)
    with pytest.raises(RequestError, match="anthropic-version: header is required"):
        parse_request(body(), {}, Dialect.MESSAGES)


@pytest.mark.parametrize(("signs", "status"), [("true", 400), ("false", 200)])
def test_a_vendor_that_signs_nothing_takes_nothing_signed(signs: str, status: int) -> None:
    turn = f"{{reasoning: hm, text: a, signature: {signs}}}"
    first = json.loads(answer(turn, thinking=THINK).body)["content"][0]
    assert bool(first["signature"]) is (signs == "true")
    assert answer(turn, *loop(thought("hm", ""))).status == status


def test_neighbours_of_one_role_are_one_message() -> None:
    call, result = loop()[1:]
    more = {"role": "user", "content": "well?"}
    when = "{when: {turn: 1, last_user_contains: well}, text: right}, {text: wrong}"
    reply = answer(when, USER, {"role": "assistant", "content": "I look."}, call, result, more)
    assert json.loads(reply.body)["content"][0]["text"] == "right"


@pytest.mark.parametrize(
    ("turn", "status", "error"),
    [
        ("{status: 529}", 529, "overloaded_error"),
        ("{status: 429, retry_after: 3}", 429, "rate_limit_error"),
        ("{status: 404}", 404, "not_found_error"),
        ("{status: 500, error: {message: m}}", 500, "api_error"),
        ("{status: 503, error: {type: server_error}}", 503, "api_error"),
        ("{status: 400, error: {type: billing_error}}", 400, "billing_error"),
        ("{when: {turn: 4}, text: never}", 400, "invalid_request_error"),
    ],
)
def test_errors(turn: str, status: int, error: str) -> None:
    reply = answer(turn)
    said = json.loads(reply.body)
    assert (reply.status, said["type"], said["error"]["type"]) == (status, "error", error)
    assert said["request_id"] == dict(reply.headers)["request-id"]


def test_an_error_and_a_malformed_frame_inside_the_stream() -> None:
    sent = events(answer("{text: a b, error: {type: overloaded_error, message: busy}}", stream=True))
    assert sent[-1]["error"] == {"type": "overloaded_error", "message": "busy"}
    assert all(e["type"] != "message_stop" for e in sent)
    broken = answer("{text: a b, malformed_after: 4}", stream=True).frames[4]
    with pytest.raises(ValueError, match=r"Invalid control|Unterminated"):
        json.loads(broken.split(b"data: ")[1])


def test_custom_and_namespaced_calls_become_functions() -> None:
    turn = "{tool_calls: [{name: patch, input: '*** a'}, {name: get, namespace: crm, arguments: {id: 1}}]}"
    calls = json.loads(answer(turn).body)["content"]
    assert [(c["name"], c["input"]) for c in calls] == [
        ("patch", {"input": "*** a"}),
        ("crm__get", {"id": 1}),
    ]


def test_counting_is_what_usage_says_and_uses_up_no_turn() -> None:
    model = ScriptedModel(parse_script("default: {turns: [{status: 500, fail_times: 1}, {text: hi}]}"))
    asked = body(system="Be brief.", tools=[{"name": "x", "input_schema": {"type": "object"}}])
    count = model.answer(parse_request(asked, HEADERS, Dialect.COUNT_TOKENS))
    statuses = [model.answer(parse_request(asked, HEADERS, Dialect.MESSAGES)) for _ in range(2)]
    assert [reply.status for reply in statuses] == [500, 200]
    usage = json.loads(statuses[1].body)["usage"]
    assert json.loads(count.body) == {"input_tokens": usage["input_tokens"]}
    parse_request(body(max_tokens=None), HEADERS, Dialect.COUNT_TOKENS)


def test_the_same_request_gets_the_same_bytes() -> None:
    for stream in (False, True):
        assert answer(FULL, thinking=THINK, stream=stream) == answer(FULL, thinking=THINK, stream=stream)


NEW = {"anthropic-version": "2026-10-21"}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_the_newer_version_has_no_sampling_parameters(name: str) -> None:
    asked = body(**{name: 1})
    assert parse_request(asked, HEADERS, Dialect.MESSAGES).model == "m"
    with pytest.raises(RequestError, match=f"^{name}: Extra inputs are not permitted$"):
        parse_request(asked, NEW, Dialect.MESSAGES)


def test_the_newer_version_takes_system_messages_among_the_others() -> None:
    call, result = loop(thought("hm"))[1:]
    asked = body(USER, SYSTEM, call, result, SYSTEM, thinking=THINK)
    talk = parse_request(asked, NEW, Dialect.MESSAGES).talk
    assert (talk.turn, talk.last["system"], talk.tools_answered) == (1, "Be brief.", {"crm_read"})
    with pytest.raises(RequestError, match='Unexpected role "system"'):
        parse_request(asked, HEADERS, Dialect.MESSAGES)


@pytest.mark.parametrize(
    ("role", "block"),
    [
        (
            "assistant",
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
        ),
        ("user", {"type": "text", "text": "a", "citations": [{"type": "char_location"}]}),
    ],
)
def test_the_newer_version_has_places_for_documents_and_citations(role: str, block: dict[str, Any]) -> None:
    asked = body(USER, {"role": role, "content": [block]})
    assert parse_request(asked, HEADERS, Dialect.MESSAGES).model == "m"
    with pytest.raises(RequestError, match="not permitted"):
        parse_request(asked, NEW, Dialect.MESSAGES)
