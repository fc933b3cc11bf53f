"""A request to the Responses API made whole from what went before it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.openai_responses.continued import (
    answers,
    continued,
    input_items,
    output_items,
    previous,
    response_id,
)
from llm_proxy.wire.spans import splice

OUT = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hé"}]}]


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_input_of_any_form_is_items() -> None:
    assert list(map(json.loads, input_items(raw({"input": 'hi "you"'})))) == [
        {"role": "user", "content": 'hi "you"'}
    ]
    assert input_items(b'{"input":[{"a": 1} , {"b":2}]}') == [b'{"a": 1}', b'{"b":2}'], "bytes are kept"
    assert input_items(b'{"model":"m"}') == input_items(b'{"input":null}') == []
    with pytest.raises(msgspec.DecodeError):
        input_items(b'{"input":7}')


@pytest.mark.parametrize("end", ["response.completed", "response.incomplete"])
def test_output_is_read_whole_and_streamed(end: str) -> None:
    assert [json.loads(item) for item in output_items(raw({"id": "r", "output": OUT}))] == OUT
    told = {"type": end, "response": {"output": OUT}}
    stream = b'event: response.created\ndata: {"type":"response.created","response":{"output":[]}}\n\n'
    stream += b"event: %b\ndata: %b\n\n" % (end.encode(), raw(told))
    assert [json.loads(item) for item in output_items(stream)] == OUT


@pytest.mark.parametrize("received", [b"", b"event: response.failed\ndata: {}\n\n", b'{"output":null}'])
def test_a_reply_that_did_not_end_says_nothing(received: bytes) -> None:
    assert output_items(received) == []


def test_everything_earlier_stands_in_front() -> None:
    body = raw({"model": "m", "previous_response_id": "resp_1", "input": "next", "store": False})
    assert previous(body) == "resp_1"
    whole = continued(body, [b'{"role":"user","content":"first"}', raw(OUT[0])])
    assert json.loads(whole) == {
        "model": "m",
        "store": False,
        "input": [{"role": "user", "content": "first"}, *OUT, {"role": "user", "content": "next"}],
    }
    assert previous(whole) == ""
    assert previous(b'{"previous_response_id":null}') == previous(b'{"previous_response_id":7}') == ""


def test_ids_are_those_of_the_calls() -> None:
    assert response_id("0199a000-0000-7000-8000-000000000001") == "resp_0199a00000007000800000000000" + "0001"


@pytest.mark.parametrize(
    "given", [{"input": "hi"}, {"input": [{"role": "user", "content": "hi"}]}, {"input": []}, {}]
)
def test_denied_calls_are_answered_before_anything_else(given: dict[str, Any]) -> None:
    body = raw({"model": "m", "previous_response_id": "resp_1"} | given)
    request = DIALECTS["openai_responses"].parse(body)
    assert answers(request, []) == []
    edits = answers(request, [("c1", False, "No."), ("c2", True, "Nor this.")])
    sent = json.loads(splice(body, edits))
    assert sent["input"][:2] == [
        {"type": "function_call_output", "call_id": "c1", "output": "No."},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "Nor this."},
    ]
    assert [item["content"] for item in sent["input"][2:]] == (["hi"] if given.get("input") else [])
