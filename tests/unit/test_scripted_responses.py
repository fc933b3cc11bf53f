"""The scripted vendor as OpenAI's Responses API: what the SDK takes of it, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from llm_proxy.scripted.model import Dialect, RequestError, ScriptedModel, ScriptedReply, parse_request
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.seals import Seal, is_ours, sealed

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ENCRYPTED = ["reasoning.encrypted_content"]
FULL = """
{reasoning: "First this.\\n\\nThen that.", text: I look., refusal: Not that., finish: tool_calls,
 tool_calls: [{name: crm_read, arguments: {id: 7}}, {name: raw, arguments: '{"broken', id: call_x},
              {name: patch, input: "*** Begin"}, {name: get, namespace: crm}],
 server_tools: [{query: tank, urls: ["https://a.example"]}],
 usage: {input: 100, cached: 60, cache_write: 5, output: 40, reasoning: 12}}
"""
TOOLS = [
    {"type": "custom", "name": "patch"},
    {"type": "namespace", "name": "crm", "description": "d", "tools": []},
]


def vendor(turns: str) -> ScriptedModel:
    return ScriptedModel(parse_script(f"default: {{turns: [{turns}]}}"))


def ask(model: ScriptedModel, input_: Any = "Where is my order?", **fields: Any) -> ScriptedReply:
    body = json.dumps({"model": "m", "input": input_, **fields}).encode()
    return model.answer(parse_request(body, {}, Dialect.RESPONSES))


def events(reply: ScriptedReply) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, frame in enumerate(reply.frames):
        name, data = frame.decode().removesuffix("\n\n").split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
        assert found[-1]["sequence_number"] == number
    return found


def test_a_whole_reply_is_one_that_the_sdk_takes() -> None:
    response = Response.model_validate_json(ask(vendor(FULL), include=ENCRYPTED, tools=TOOLS).body)
    reasoning, search, message, *calls = response.output
    assert reasoning.type == "reasoning"
    assert [part.text for part in reasoning.summary] == ["First this.", "Then that."]
    assert is_ours(Seal.ENCRYPTED, reasoning.encrypted_content or "")
    assert search.type == "web_search_call"
    assert message.type == "message"
    assert [part.type for part in message.content] == ["output_text", "refusal"]
    assert [call.type for call in calls] == ["function_call"] * 2 + ["custom_tool_call", "function_call"]
    first, raw, custom, spaced = (call.to_dict() for call in calls)
    assert (first["name"], first["arguments"]) == ("crm_read", '{"id":7}')
    assert (raw["call_id"], raw["arguments"]) == ("call_x", '{"broken')
    assert (custom["name"], custom["input"]) == ("patch", "*** Begin")
    assert (spaced["name"], spaced["namespace"]) == ("get", "crm")
    assert len({item.id for item in response.output}) == len(response.output)
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 60
    assert response.usage.output_tokens_details.reasoning_tokens == 12


def test_what_is_not_declared_goes_out_as_plain_functions_and_unsealed() -> None:
    output = json.loads(ask(vendor(FULL)).body)["output"]
    calls = [(i["name"], i["arguments"]) for i in output if i["type"] == "function_call"]
    assert calls[2:] == [("patch", '{"input":"*** Begin"}'), ("crm__get", "{}")]
    assert "encrypted_content" not in output[0]


@pytest.mark.parametrize("turn", [FULL, "{reasoning: raw words, raw_reasoning: true, text: b, deltas: 2}"])
def test_stream_and_whole_agree(turn: str) -> None:
    fields: dict[str, Any] = {"include": ENCRYPTED, "tools": TOOLS}
    sent = events(ask(vendor(turn), stream=True, **fields))
    for event in sent:
        EVENTS.validate_python(event)
    assert [e["type"] for e in sent[:2]] == ["response.created", "response.in_progress"]
    assert sent[0]["response"]["output"] == []
    done = [e["item"] for e in sent if e["type"] == "response.output_item.done"]
    added = [e["item"] for e in sent if e["type"] == "response.output_item.added"]
    assert sent[-1]["type"] == "response.completed"
    final = sent[-1]["response"]
    assert final["output"] == done
    assert [item["id"] for item in added] == [item["id"] for item in done]
    whole = json.loads(ask(vendor(turn), **fields).body)
    for name in ("output", "usage", "status"):
        assert [strip(final[name])] == [strip(whole[name])]


def strip(value: Any) -> Any:
    """Without what follows from the request's bytes, in which stream and whole differ."""
    if isinstance(value, dict):
        return {k: strip(v) for k, v in value.items() if k not in ("id", "call_id", "encrypted_content")}
    return [strip(item) for item in value] if isinstance(value, list) else value


def test_deltas_join_to_what_is_done() -> None:
    sent = events(ask(vendor(FULL), stream=True, tools=TOOLS))
    joined: dict[Any, str] = {}
    compared = 0
    for e in sent:
        place = (e.get("item_id"), e.get("summary_index"), e.get("content_index"))
        if e["type"].endswith(".delta"):
            joined[place] = joined.get(place, "") + e["delta"]
        for field in ("text", "arguments", "input", "refusal"):
            if e["type"].endswith(".done") and field in e:
                assert joined[place] == e[field]
                compared += 1
    assert compared == 2 + 2 + 4


def test_the_settings_are_echoed() -> None:
    fields = {"instructions": "Be brief.", "metadata": {"a": "b"}, "temperature": 0.5, "tools": TOOLS}
    response = json.loads(ask(vendor("{text: hi, extra: {service_tier: flex}}"), **fields).body)
    assert {name: response[name] for name in fields} == fields
    assert response["service_tier"] == "flex"


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("stop", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
    ],
)
def test_how_it_ends(finish: str, status: str, reason: str | None) -> None:
    model = vendor(f"{{text: hi, finish: {finish}}}")
    whole = json.loads(ask(model).body)
    last = events(ask(model, stream=True))[-1]
    assert last["type"] == f"response.{status}"
    for response in (whole, last["response"]):
        assert response["status"] == status
        assert (response["incomplete_details"] or {}).get("reason") == reason


CALLING = """{when: {turn: 0}, reasoning: hm, tool_calls: [{name: crm_read}]},
{when: {turn: 1, tool_answered: crm_read, last_tool_contains: gold}, text: right}, {text: wrong}"""


def output_of(reply: ScriptedReply) -> list[dict[str, Any]]:
    return json.loads(reply.body)["output"]


def result_of(call: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call["call_id"], "output": "gold customer"}


def test_a_conversation_goes_on_by_its_id() -> None:
    model = vendor(CALLING)
    first = json.loads(ask(model).body)
    then = ask(model, [result_of(first["output"][-1])], previous_response_id=first["id"])
    assert output_of(then)[0]["content"][0]["text"] == "right"
    assert json.loads(model.kept.body(first["id"]) or b"") == first


@pytest.mark.parametrize("streamed", [False, True])
def test_a_conversation_goes_on_by_its_items(streamed: bool) -> None:
    model = vendor(CALLING)
    asked: dict[str, Any] = {"store": False, "include": ENCRYPTED, "stream": streamed}
    reply = ask(model, **asked)
    output = events(reply)[-1]["response"]["output"] if streamed else output_of(reply)
    user = {"role": "user", "content": [{"type": "input_text", "text": "Where?"}]}
    then = ask(model, [user, *output, result_of(output[-1])], store=False)
    assert output_of(then)[0]["content"][0]["text"] == "right"


def test_reasoning_of_a_kept_response_needs_no_seal() -> None:
    model = vendor(CALLING)
    output = output_of(ask(model))
    assert ask(model, [*output, result_of(output[-1])]).status == 200
    model.reset()
    refused = ask(model, [*output, result_of(output[-1])])
    assert refused.status == 404
    assert "not found. Items are not persisted" in json.loads(refused.body)["error"]["message"]


def test_what_is_not_stored_can_not_be_gone_on_with() -> None:
    model = vendor("{text: hi}")
    first = json.loads(ask(model, store=False).body)
    refused = ask(model, previous_response_id=first["id"])
    error = json.loads(refused.body)["error"]
    assert (refused.status, error["code"]) == (400, "previous_response_not_found")
    assert error["param"] == "previous_response_id"
    assert model.kept.body(first["id"]) is None


def test_a_previous_response_leaves_no_call_open() -> None:
    model = vendor(CALLING)
    first = json.loads(ask(model).body)
    error = json.loads(ask(model, "well?", previous_response_id=first["id"]).body)["error"]
    assert error["message"].startswith("No tool output found for function call call_")


SEAL = sealed(Seal.ENCRYPTED, "x")


@pytest.mark.parametrize(
    ("item", "code", "says"),
    [
        (
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAAforeign=="},
            "invalid_encrypted_content",
            r"The encrypted content gAAA\.\.\.gn== could not be verified",
        ),
        (
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": SEAL[:-8] + "AAAAAAA="},
            "invalid_encrypted_content",
            "could not be verified",
        ),
        (
            {"type": "function_call_output", "call_id": "call_1", "output": "x"},
            "invalid_request_error",
            "No tool call found for function call output with call_id call_1",
        ),
        (
            {"type": "function_call", "call_id": "call_1", "name": "x", "arguments": "{}"},
            "invalid_request_error",
            "No tool output found for function call call_1",
        ),
    ],
)
def test_refusals(item: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        ask(vendor("{text: hi}"), [item])
    assert caught.value.code == code


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model":"m","input":7}', b'{"model":"\xff"}'])
def test_a_body_that_is_no_request(body: bytes) -> None:
    with pytest.raises(RequestError):
        parse_request(body, {}, Dialect.RESPONSES)


def test_turns_are_counted_by_groups_of_items() -> None:
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"type": "reasoning", "summary": [], "encrypted_content": SEAL},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "function_call", "call_id": "c", "name": "x", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "gold"}]},
        {"role": "assistant", "content": "last words"},
        {"role": "user", "content": "d"},
        {"type": "computer_call_output", "call_id": "z", "output": {"type": "computer_screenshot"}},
    ]
    when = "turn: 2, last_assistant_contains: last words, last_tool_contains: gold, last_user_contains: d"
    [said] = output_of(ask(vendor(f"{{when: {{{when}}}, text: right}}, {{text: wrong}}"), items))
    assert said["content"][0]["text"] == "right"


def test_in_the_background_it_is_queued_and_then_there() -> None:
    model = vendor("{text: hi}")
    queued = json.loads(ask(model, background=True).body)
    assert (queued["status"], queued["output"]) == ("queued", [])
    kept = json.loads(model.kept.body(queued["id"]) or b"")
    assert (kept["status"], kept["background"]) == ("completed", True)


def test_an_error_inside_the_stream_and_before_it() -> None:
    turn = "{text: a b, error: {message: busy, type: server_error, code: server_error}}"
    sent = events(ask(vendor(turn), stream=True))
    assert sent[-2]["type"] == "error"
    assert sent[-2]["error"]["message"] == "busy"
    assert EVENTS.validate_python(sent[-1]).response.error.message == "busy"
    assert sent[-1]["response"]["status"] == "failed"
    reply = ask(vendor("{status: 429, retry_after: 2}"))
    assert (reply.status, json.loads(reply.body)["error"]["type"]) == (429, "rate_limit_error")


def test_the_same_request_gets_the_same_bytes() -> None:
    model = vendor(FULL)
    for stream in (False, True):
        assert ask(model, stream=stream) == ask(model, stream=stream)
