"""Neutral requests written for an upstream that speaks Responses, held against OpenAI's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import ResponseCreateParams, ResponseInputAudioParam
from pydantic import TypeAdapter

from llm_proxy.chat.events import ANTHROPIC_FORMAT, RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import (
    AudioPart,
    CallPart,
    Choose,
    Effort,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    RefusalPart,
    ResultPart,
    Role,
    TextPart,
    Thinking,
    ThoughtPart,
    Tool,
    ToolChoice,
)
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_responses.prompt_write import write_prompt

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
RAW_SCHEMA = json.dumps(SCHEMA).encode()

_params: TypeAdapter[Any] = TypeAdapter(ResponseCreateParams)


def user(*parts: Any) -> Message:
    return Message(role=Role.USER, parts=parts)


def assistant(*parts: Any) -> Message:
    return Message(role=Role.ASSISTANT, parts=parts)


def prompt(*messages: Message, **more: Any) -> Prompt:
    return Prompt(model="gpt-5.2", messages=messages or (user(TextPart(text="Hi")),), **more)


def written(of: Prompt, *dropped: str) -> dict[str, Any]:
    """The body, which the vendor's own types accept, with the names of what was left out as given."""
    found = write_prompt(of)
    assert found.dropped == dropped
    body = json.loads(found.body)
    _params.validate_python(body)
    return body


def items(*messages: Message, dropped: tuple[str, ...] = ()) -> list[Any]:
    return written(prompt(*messages), *dropped)["input"]


def test_text_and_nothing_more() -> None:
    assert written(prompt()) == {
        "model": "gpt-5.2",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        "stream": False,
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }


def test_settings() -> None:
    body = written(
        prompt(
            system=(TextPart(text="One."), TextPart(text="Two.")),
            stream=True,
            parallel_calls=False,
            max_output=500,
            temperature=0.2,
            top_p=0.9,
            thinking=Thinking(effort=Effort.LOW, summary="concise"),
            output=OutputFormat(schema=RAW_SCHEMA, name="city", description="A city.", strict=True),
            verbosity="low",
            user="u",
            service_tier="flex",
            cache_key="key",
        )
    )
    del body["input"]
    assert body == {
        "model": "gpt-5.2",
        "instructions": "One.\n\nTwo.",
        "stream": True,
        "parallel_tool_calls": False,
        "max_output_tokens": 500,
        "temperature": 0.2,
        "top_p": 0.9,
        "reasoning": {"effort": "low", "summary": "concise"},
        "text": {
            "verbosity": "low",
            "format": {
                "type": "json_schema",
                "name": "city",
                "description": "A city.",
                "strict": True,
                "schema": SCHEMA,
            },
        },
        "user": "u",
        "service_tier": "flex",
        "prompt_cache_key": "key",
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }


@pytest.mark.parametrize(
    ("thinking", "reasoning", "dropped"),
    [
        (Thinking(effort=Effort.NONE), {"effort": "none"}, ()),
        (Thinking(effort=Effort.MAX), {"effort": "max"}, ()),
        (Thinking(enabled=True, budget=10_000), {"effort": "high", "summary": "auto"}, ()),
        (Thinking(enabled=True, adaptive=True), {"summary": "auto"}, ()),
        (Thinking(enabled=True, budget=2_000, summary="omitted"), {"effort": "low"}, ()),
        (Thinking(effort=Effort.LOW, summary="summarized"), {"effort": "low", "summary": "auto"}, ()),
        (Thinking(enabled=False), None, ("reasoning",)),
        (Thinking(enabled=False, effort=Effort.HIGH), None, ("reasoning",)),
        (Thinking(enabled=False, effort=Effort.NONE), {"effort": "none"}, ()),
    ],
)
def test_reasoning(thinking: Thinking, reasoning: Any, dropped: tuple[str, ...]) -> None:
    assert written(prompt(thinking=thinking), *dropped).get("reasoning") == reasoning


def test_json_without_a_schema_and_a_schema_without_a_name() -> None:
    assert written(prompt(output=OutputFormat()))["text"] == {"format": {"type": "json_object"}}
    form = written(prompt(output=OutputFormat(schema=RAW_SCHEMA)))["text"]["format"]
    assert form == {"type": "json_schema", "name": "output", "schema": SCHEMA}


def test_a_cap_below_the_least_is_raised() -> None:
    assert written(prompt(max_output=1))["max_output_tokens"] == 16


def test_system_words_alone_are_the_input() -> None:
    body = json.loads(write_prompt(Prompt(model="m", messages=(), system=(TextPart(text="Go."),))).body)
    assert body["input"] == [
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Go."}]}
    ]
    assert "instructions" not in body


def test_hints_that_responses_lacks() -> None:
    written(
        prompt(
            user(TextPart(text="Hi", cache=True)),
            system=(TextPart(text="S", cache=True),),
            tools=(Tool(name="t", cache=True),),
            top_k=5,
            stop=("END",),
            seed=7,
            presence_penalty=0.0,
            frequency_penalty=0.5,
            service_tier="standard_only",
        ),
        "top_k",
        "stop",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "service_tier",
        "cache_control",
    )


def test_more_than_one_answer_is_refused() -> None:
    with pytest.raises(ProxyError) as caught:
        write_prompt(prompt(n=2))
    assert (caught.value.kind, caught.value.param) == (Kind.UNSUPPORTED_FEATURE, "n")


class TestMessages:
    def test_parts(self) -> None:
        [message] = items(
            user(
                TextPart(text="See:"),
                ImagePart(url="https://x/y.png"),
                ImagePart(data="iVBO", media_type="image/png", detail="low"),
                ImagePart(file_id="file-1"),
                FilePart(data="JVBER", media_type="application/pdf"),
                FilePart(name="a.csv", data="YQ==", media_type="text/csv"),
                FilePart(url="https://x/y.pdf"),
                FilePart(file_id="file-2"),
                FilePart(name="notes", text="Buy milk."),
            )
        )
        assert message["content"] == [
            {"type": "input_text", "text": "See:"},
            {"type": "input_image", "detail": "auto", "image_url": "https://x/y.png"},
            {"type": "input_image", "detail": "low", "image_url": "data:image/png;base64,iVBO"},
            {"type": "input_image", "detail": "auto", "file_id": "file-1"},
            {
                "type": "input_file",
                "filename": "document.pdf",
                "file_data": "data:application/pdf;base64,JVBER",
            },
            {"type": "input_file", "filename": "a.csv", "file_data": "data:text/csv;base64,YQ=="},
            {"type": "input_file", "file_url": "https://x/y.pdf"},
            {"type": "input_file", "file_id": "file-2"},
            {"type": "input_text", "text": "notes\n\nBuy milk."},
        ]

    def test_what_an_assistant_said(self) -> None:
        assert items(assistant(TextPart(text="No."), TextPart(text=""), TextPart(text="Not that."))) == [
            {"type": "message", "role": "assistant", "content": "No."},
            {"type": "message", "role": "assistant", "content": "Not that."},
        ]

    def test_a_refusal(self) -> None:
        """OpenAI's client has no type for one that is sent back without its id."""
        body = json.loads(write_prompt(prompt(assistant(RefusalPart(text="I won't.")))).body)
        refusal = {"type": "refusal", "refusal": "I won't."}
        assert body["input"] == [{"type": "message", "role": "assistant", "content": [refusal]}]

    def test_audio(self) -> None:
        """OpenAI's client has a type for it that no message's content lists."""
        body = json.loads(write_prompt(prompt(user(AudioPart(data="UklG", format="wav")))).body)
        part = body["input"][0]["content"][0]
        TypeAdapter(ResponseInputAudioParam).validate_python(part)
        assert part == {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}

    def test_a_system_message_in_the_middle(self) -> None:
        _, message = items(
            user(TextPart(text="Hi")), Message(role=Role.SYSTEM, parts=(TextPart(text="Be brief."),))
        )
        assert message["role"] == "system"

    def test_a_name_is_left_out(self) -> None:
        items(Message(role=Role.USER, name="Ann", parts=(TextPart(text="Hi"),)), dropped=("name",))


class TestCalls:
    def test_calls_and_results(self) -> None:
        assert items(
            assistant(
                TextPart(text="Looking."),
                CallPart(id="c1", name="w", arguments='{"a":1}'),
                CallPart(id="c2", name="apply_patch", arguments="*** Begin", custom=True),
            ),
            user(
                ResultPart(call_id="c1", parts=(TextPart(text="sunny"),)),
                ResultPart(call_id="c2", custom=True),
                TextPart(text="And?"),
            ),
        )[1:] == [
            {"type": "function_call", "call_id": "c1", "name": "w", "arguments": '{"a":1}'},
            {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "*** Begin"},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": ""},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "And?"}]},
        ]

    def test_a_result_with_an_image(self) -> None:
        shown = (TextPart(text="see"), ImagePart(url="https://x/y.png"))
        [result] = items(user(ResultPart(call_id="c1", parts=shown)))
        assert [part["type"] for part in result["output"]] == ["input_text", "input_image"]

    def test_ids_fit_and_still_meet(self) -> None:
        long = "toolu:" + "x" * 80
        call, result = items(
            assistant(CallPart(id=long, name="w", arguments="{}")), user(ResultPart(call_id=long))
        )
        assert call["call_id"] == result["call_id"]
        assert len(call["call_id"]) <= 64

    def test_what_a_call_and_a_result_cannot_say(self) -> None:
        items(
            assistant(CallPart(id="c", name="w", arguments="{}", signature="CiQB", cache=True)),
            user(ResultPart(call_id="c", is_error=True)),
            dropped=("cache_control", "reasoning", "is_error"),
        )


class TestReasoningSentBack:
    def thought(self, kind: ReasoningKind, text: str, **more: Any) -> ThoughtPart:
        more = {"id": "rs_1", "format": RESPONSES_FORMAT, **more}
        return ThoughtPart(thought=ReasoningPart(kind=kind, text=text, **more))

    def test_an_item_goes_back_as_it_was_given(self) -> None:
        [item] = items(
            assistant(
                self.thought(ReasoningKind.ENCRYPTED, "gAAA"),
                self.thought(ReasoningKind.SUMMARY, "A."),
                self.thought(ReasoningKind.SUMMARY, "B."),
                self.thought(ReasoningKind.RAW, "Raw."),
            )
        )
        assert item == {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "A."}, {"type": "summary_text", "text": "B."}],
            "content": [{"type": "reasoning_text", "text": "Raw."}],
            "encrypted_content": "gAAA",
        }

    def test_items_stand_where_they_stood(self) -> None:
        found = items(
            assistant(
                self.thought(ReasoningKind.ENCRYPTED, "1"),
                self.thought(ReasoningKind.ENCRYPTED, "2", id="rs_2"),
                CallPart(id="c", name="w", arguments="{}"),
                self.thought(ReasoningKind.ENCRYPTED, "3", id="rs_3"),
                TextPart(text="Done."),
            )
        )
        assert [item.get("encrypted_content", item["type"]) for item in found] == [
            "1",
            "2",
            "function_call",
            "3",
            "message",
        ]

    def test_items_whose_ids_were_stripped(self) -> None:
        found = write_prompt(
            prompt(
                assistant(
                    self.thought(ReasoningKind.SUMMARY, "A.", id=""),
                    self.thought(ReasoningKind.ENCRYPTED, "1", id=""),
                    self.thought(ReasoningKind.ENCRYPTED, "2", id=""),
                )
            )
        )
        assert json.loads(found.body)["input"] == [
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "A."}],
                "encrypted_content": "1",
            },
            {"type": "reasoning", "summary": [], "encrypted_content": "2"},
        ]

    @pytest.mark.parametrize(
        "thought",
        [
            ReasoningPart(kind=ReasoningKind.RAW, text="Hm."),
            ReasoningPart(kind=ReasoningKind.SUMMARY, text="Hm.", id="rs_1", format=RESPONSES_FORMAT),
            ReasoningPart(kind=ReasoningKind.RAW, text="Hm.", signature="Eq", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.REDACTED, text="Em", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="x", id="r", format="xai-responses-v1"),
        ],
    )
    def test_what_is_not_sealed_by_openai_is_left_out(self, thought: ReasoningPart) -> None:
        [item] = items(
            assistant(ThoughtPart(thought=thought), TextPart(text="Done.")), dropped=("reasoning",)
        )
        assert item["type"] == "message"


class TestTools:
    def test_strict_is_always_said(self) -> None:
        tools = written(
            prompt(
                tools=(
                    Tool(name="a", parameters=RAW_SCHEMA, description="A."),
                    Tool(name="b", parameters=RAW_SCHEMA, strict=True),
                    Tool(name="c"),
                )
            )
        )["tools"]
        assert tools == [
            {"type": "function", "name": "a", "strict": False, "parameters": SCHEMA, "description": "A."},
            {"type": "function", "name": "b", "strict": True, "parameters": SCHEMA},
            {"type": "function", "name": "c", "strict": False, "parameters": None},
        ]

    def test_freeform(self) -> None:
        grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
        tools = (
            Tool(name="p", custom=True, description="P.", grammar=json.dumps(grammar).encode()),
            Tool(name="q", custom=True),
        )
        assert written(prompt(tools=tools))["tools"] == [
            {"type": "custom", "name": "p", "description": "P.", "format": grammar},
            {"type": "custom", "name": "q"},
        ]

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            (ToolChoice(mode=Choose.AUTO), "auto"),
            (ToolChoice(mode=Choose.NONE), "none"),
            (ToolChoice(mode=Choose.REQUIRED), "required"),
            (ToolChoice(mode=Choose.TOOL, name="f"), {"type": "function", "name": "f"}),
            (ToolChoice(mode=Choose.TOOL, name="p"), {"type": "custom", "name": "p"}),
            (
                ToolChoice(mode=Choose.REQUIRED, allowed=("f", "p")),
                {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "p"}],
                },
            ),
        ],
    )
    def test_choices(self, choice: ToolChoice, expected: Any) -> None:
        tools = (Tool(name="f"), Tool(name="p", custom=True))
        assert written(prompt(tools=tools, tool_choice=choice))["tool_choice"] == expected
