"""The ways of chat's many vendors: where they put reasoning, what they want back, custom calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from llm_proxy.scripted.model import ScriptedModel, ScriptedReply, parse_request
from llm_proxy.scripted.script import ScriptError, parse_script
from llm_proxy.scripted.seals import Seal, is_ours, is_signed, sealed

USER = {"role": "user", "content": "hi"}
CUSTOM = [{"type": "custom", "custom": {"name": "patch"}}]
CALLS = "tool_calls: [{name: patch, input: '*** Begin'}, {name: get, namespace: crm, arguments: {id: 1}}]"


def answer(turns: str, *messages: dict[str, Any], model: str = "", **fields: Any) -> ScriptedReply:
    body = {"model": "m", "messages": [USER, *messages], **fields}
    script = parse_script(f"default: {{{model} turns: [{turns}]}}")
    return ScriptedModel(script).answer(parse_request(json.dumps(body).encode()))


def message(reply: ScriptedReply) -> dict[str, Any]:
    ChatCompletion.model_validate_json(reply.body)
    return json.loads(reply.body)["choices"][0]["message"]


def deltas(reply: ScriptedReply) -> list[dict[str, Any]]:
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in reply.frames[:-1]]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    return [chunk["choices"][0]["delta"] for chunk in chunks]


@pytest.mark.parametrize("split", ["", ", deltas: 20"])
def test_think_tags(split: str) -> None:
    turn = f"{{reasoning: Let me think., text: I look., think_tags: true{split}}}"
    whole = message(answer(turn))
    assert whole["content"] == "<think>Let me think.</think>I look."
    assert "reasoning_content" not in whole
    pieces = [delta.get("content") or "" for delta in deltas(answer(turn, stream=True))]
    assert "".join(pieces) == whole["content"]
    assert any("<think>" in piece for piece in pieces) is (not split)


def test_think_tags_beside_calls_only() -> None:
    turn = "{reasoning: hm, think_tags: true, tool_calls: [{name: x}]}"
    assert message(answer(turn))["content"] == "<think>hm</think>"
    assert deltas(answer(turn, stream=True))[0]["content"] == ""


def test_reasoning_details() -> None:
    turn = "{reasoning: Let me think., redacted: hidden, text: a, reasoning_field: reasoning_details}"
    whole = message(answer(turn))
    assert whole["reasoning"] == "Let me think."
    text, hidden = whole["reasoning_details"]
    assert is_signed(text["text"], text["signature"])
    assert is_ours(Seal.REDACTED, hidden["data"])
    streamed = deltas(answer(turn, stream=True))
    merged: dict[int, dict[str, Any]] = {}
    for detail in (d for delta in streamed for d in delta.get("reasoning_details", [])):
        words = merged.get(detail["index"], {}).get("text", "") + detail.get("text", "")
        merged[detail["index"]] = (
            merged.get(detail["index"], {}) | detail | ({"text": words} if words else {})
        )
    assert list(merged.values()) == [text, hidden]
    assert "".join(delta.get("reasoning", "") for delta in streamed) == "Let me think."


def test_reasoning_details_without_words_or_seal() -> None:
    field = "reasoning_field: reasoning_details"
    assert (
        "signature"
        not in message(answer(f"{{reasoning: a, signature: false, {field}}}"))["reasoning_details"][0]
    )
    [only] = message(answer(f"{{redacted: a, {field}}}"))["reasoning_details"]
    assert (only["type"], only["index"]) == ("reasoning.encrypted", 0)
    assert "reasoning_details" not in message(answer(f"{{text: a, {field}}}"))


def test_custom_calls_where_the_request_declares_them() -> None:
    custom, spaced = message(answer(f"{{{CALLS}}}", tools=CUSTOM))["tool_calls"]
    assert custom["custom"] == {"name": "patch", "input": "*** Begin"}
    assert spaced["function"] == {"name": "crm__get", "arguments": '{"id":1}'}
    frames = answer(f"{{{CALLS}}}", tools=CUSTOM, stream=True).frames[:-1]
    sent = [json.loads(frame.removeprefix(b"data: "))["choices"][0]["delta"] for frame in frames]
    streamed = [delta["tool_calls"][0] for delta in sent if "tool_calls" in delta]
    assert streamed[0]["custom"] == {"name": "patch", "input": ""}
    assert "".join(c["custom"]["input"] for c in streamed if "custom" in c) == "*** Begin"


def test_custom_calls_become_functions_where_it_does_not() -> None:
    first = message(answer(f"{{{CALLS}}}"))["tool_calls"][0]
    assert first["function"] == {"name": "patch", "arguments": '{"input":"*** Begin"}'}


def test_a_custom_call_counts_as_answered() -> None:
    call = {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": "x"}}
    sent = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "ok"},
    ]
    assert (
        message(answer("{when: {tool_answered: patch}, text: right}, {text: wrong}", *sent))["content"]
        == "right"
    )


def test_input_and_arguments_exclude_each_other() -> None:
    with pytest.raises(ScriptError, match="input and arguments exclude each other"):
        parse_script("default: {turns: [{tool_calls: [{name: x, input: a, arguments: {b: 1}}]}]}")


@pytest.mark.parametrize(
    ("reasoning", "status"),
    [
        ({}, 400),
        ({"reasoning_content": None}, 400),
        ({"reasoning_content": ""}, 200),
        ({"reasoning_content": "hm"}, 200),
    ],
)
def test_reasoning_wanted_back(reasoning: dict[str, Any], status: int) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "x", "arguments": "{}"}}
    sent = [
        {"role": "assistant", "content": "words only"},
        {"role": "assistant", "content": None, "tool_calls": [call], **reasoning},
        {"role": "tool", "tool_call_id": "c1", "content": "ok"},
    ]
    reply = answer("{text: a}", *sent, model="requires_reasoning_content: true,")
    assert reply.status == status
    if status == 400:
        said = json.loads(reply.body)["error"]["message"]
        assert said.startswith(
            "Missing `reasoning_content` field in the assistant message at message index 2."
        )
    assert answer("{text: a}", *sent).status == 200


@pytest.mark.parametrize("seal", list(Seal))
def test_seals_are_of_their_kind_and_of_this_vendor(seal: Seal) -> None:
    made = sealed(seal, "words")
    assert made == sealed(seal, "words") != sealed(seal, "other")
    assert [is_ours(kind, made) for kind in Seal] == [kind is seal for kind in Seal]
    assert not any(
        is_ours(seal, wrong) for wrong in ("", made[:-4], made[:8] + "AAAA" + made[12:], "é", "a b")
    )
    assert made.startswith({"SIGNATURE": "EqoB", "REDACTED": "Emw", "ENCRYPTED": "gAAAAA"}[seal.name])
