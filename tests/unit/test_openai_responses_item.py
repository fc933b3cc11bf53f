"""OpenAI Responses: what one item of the input says, answers and proposed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.chat.events import RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.errors import ProxyError
from llm_proxy.wire.dialect import Signed
from llm_proxy.wire.openai_responses.item import message_facts, signed
from llm_proxy.wire.request import Answered, Media, MediaKind, MessageFacts, Proposed


def facts(item: object) -> MessageFacts:
    return message_facts(json.dumps(item).encode())


def test_easy_messages() -> None:
    assert facts("hi") == MessageFacts(role="user", texts=("hi",), user_text="hi")
    assert facts({"role": "user", "content": "hi"}) == MessageFacts(
        role="user", texts=("hi",), user_text="hi"
    )
    assert facts({"type": "message", "role": "developer", "content": "be"}) == MessageFacts(
        role="developer", texts=("be",)
    )


def test_parts() -> None:
    said = facts(
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
                {"type": "input_image", "file_id": "file_1"},
                {"type": "input_audio", "input_audio": {"data": "AAAAAA", "format": "wav"}},
                {"type": "input_file", "file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"},
                {"type": "input_text", "text": "b"},
                {"type": "hologram", "x": 1},
            ],
        }
    )
    assert said.user_text == 'a\nb\n{"type": "hologram", "x": 1}'
    assert said.images == (
        Media(detail="low", size=4),
        Media(),
        Media(size=6, kind=MediaKind.AUDIO),
        Media(size=2, kind=MediaKind.FILE),
    )


def test_an_answer_sent_back() -> None:
    item: dict[str, Any] = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "content": [
            {"type": "output_text", "text": "a", "annotations": []},
            {"type": "refusal", "refusal": "no"},
        ],
    }
    assert facts(item) == MessageFacts(role="assistant", texts=("a", "no"))


@pytest.mark.parametrize(
    ("item", "meant"),
    [
        (
            {"type": "function_call", "id": "fc", "call_id": "c", "name": "n", "arguments": "{}"},
            Proposed("c", "n", "{}"),
        ),
        (
            {
                "type": "function_call",
                "call_id": "c",
                "name": "get",
                "namespace": "crm",
                "arguments": "{}",
            },
            Proposed("c", "crm__get", "{}"),
        ),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "n", "input": "x"},
            Proposed("c", "n", "x"),
        ),
        (
            {"type": "local_shell_call", "id": "l", "call_id": "c", "action": {"command": ["ls"]}},
            Proposed("c", "local_shell", '{"command":["ls"]}'),
        ),
        (
            {"type": "mcp_approval_request", "id": "a", "name": "x", "server_label": "s", "arguments": "{}"},
            Proposed("a", "s__x", "{}"),
        ),
    ],
)
def test_calls(item: object, meant: Proposed) -> None:
    said = facts(item)
    assert said.proposed == (meant,)
    assert said.texts == (meant.name, meant.arguments)
    assert said.role == "assistant"


@pytest.mark.parametrize(
    ("item", "meant"),
    [
        ({"type": "function_call_output", "call_id": "c", "output": "42"}, Answered("c", "42")),
        (
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
            },
            Answered("c", "a\nb"),
        ),
        ({"type": "custom_tool_call_output", "call_id": "c", "output": "ok"}, Answered("c", "ok")),
        ({"type": "local_shell_call_output", "id": "c", "output": '{"a":1}'}, Answered("c", '{"a":1}')),
        (
            {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "x"}]},
            Answered("c", '{"stdout": "x"}'),
        ),
        (
            {"type": "apply_patch_call_output", "call_id": "c", "status": "completed", "output": None},
            Answered("c", ""),
        ),
        (
            {"type": "mcp_approval_response", "approval_request_id": "c", "approve": True},
            Answered("c", "approved"),
        ),
        (
            {
                "type": "mcp_approval_response",
                "approval_request_id": "c",
                "approve": False,
                "reason": "no",
            },
            Answered("c", "refused: no"),
        ),
        (
            {"type": "tool_search_output", "call_id": "c", "tools": [{"name": "x"}]},
            Answered("c", '{"name": "x"}'),
        ),
    ],
)
def test_results(item: object, meant: Answered) -> None:
    said = facts(item)
    assert said.results == (meant,)
    assert said.role == "tool"
    assert said.user_text == ""


def test_a_screenshot_is_an_image() -> None:
    shot = {"type": "computer_screenshot", "image_url": "data:image/png;base64,AAAA"}
    said = facts({"type": "computer_call_output", "call_id": "c", "output": shot})
    assert said.images == (Media(size=4),)
    assert said.results == (Answered("c", ""),)


REASONING: dict[str, Any] = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
    "content": [{"type": "reasoning_text", "text": "raw"}],
    "encrypted_content": "gAAA",
}


def test_reasoning() -> None:
    def part(kind: ReasoningKind, text: str) -> ReasoningPart:
        return ReasoningPart(kind=kind, text=text, id="rs_1", format=RESPONSES_FORMAT)

    said = facts(REASONING)
    assert said.texts == ("a\n\nb", "raw")
    assert said.reasoning == (
        part(ReasoningKind.SUMMARY, "a\n\nb"),
        part(ReasoningKind.RAW, "raw"),
        part(ReasoningKind.ENCRYPTED, "gAAA"),
    )


def test_the_seal_of_reasoning_goes_with_its_item() -> None:
    raw = json.dumps(REASONING).encode()
    assert signed(raw) == (Signed((0, len(raw)), "gAAA"),)
    for item in (
        {**REASONING, "encrypted_content": None},
        {**REASONING, "type": "compaction"},
        {"role": "user", "content": '"encrypted_content"'},
        "encrypted_content",
    ):
        assert signed(json.dumps(item).encode()) == ()


def test_what_costs_no_words() -> None:
    assert facts({"type": "item_reference", "id": "x"}) == MessageFacts(elsewhere=1, reference="x")
    assert facts({"type": "compaction", "encrypted_content": "xyz"}) == MessageFacts(sealed=3)
    drawn = facts({"type": "image_generation_call", "id": "x", "result": "AAAA"})
    assert (drawn.texts, drawn.images) == ((), (Media(size=4),))


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "id": "x", "action": {"query": "q"}},
        {"type": "code_interpreter_call", "code": "1", "outputs": []},
        {"type": "never_heard_of"},
        {"type": "reasoning", "summary": 5},
        {"type": "function_call", "name": 5},
        5,
        None,
    ],
)
def test_what_has_no_known_shape_is_its_own_text(item: object) -> None:
    assert facts(item).texts == (json.dumps(item),)


def test_a_repeated_key_is_refused() -> None:
    with pytest.raises(ProxyError, match="occurs twice") as raised:
        message_facts(b'{"type":"function_call","name":"a","n\\u0061me":"b"}')
    assert raised.value.param == "input"
    with pytest.raises(ProxyError, match="nested too deeply"):
        message_facts(b'{"a":' + b"[" * 99_999 + b"]" * 99_999 + b"}")
