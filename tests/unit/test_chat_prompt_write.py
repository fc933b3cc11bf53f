"""Neutral prompts as OpenAI chat requests."""

from __future__ import annotations

import json

import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from llm_proxy.chat.events import (
    ANTHROPIC_FORMAT,
    GEMINI_FORMAT,
    RESPONSES_FORMAT,
    ReasoningKind,
)
from llm_proxy.chat.prompt import (
    AudioPart,
    CallPart,
    Choose,
    Effort,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Part,
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
from llm_proxy.wire.openai_chat.prompt_messages import MEDIA_FOLLOWS
from llm_proxy.wire.openai_chat.prompt_write import write_prompt
from llm_proxy.wire.openai_chat.reasoning import XAI_FORMAT

HI = Message(role=Role.USER, parts=(TextPart(text="hi"),))
OFFICIAL = TypeAdapter(CompletionCreateParamsNonStreaming)
MESSAGES = TypeAdapter(list[ChatCompletionMessageParam])
TOOLS = TypeAdapter(list[ChatCompletionToolUnionParam])


def written(*messages: Message, **fields: object) -> tuple[dict[str, object], tuple[str, ...]]:
    found = write_prompt(Prompt(model="m", messages=messages or (HI,), **fields))  # pyright: ignore[reportArgumentType]
    body = json.loads(found.body)
    OFFICIAL.validate_python({key: value for key, value in body.items() if not key.startswith("stream")})
    MESSAGES.validate_python(body["messages"])
    TOOLS.validate_python(body.get("tools", []))
    return body, found.dropped


def said(*messages: Message) -> list[dict[str, object]]:
    body, _ = written(*messages)
    found = body["messages"]
    assert isinstance(found, list)
    return found


def user(*parts: Part) -> Message:
    return Message(role=Role.USER, parts=parts)


def assistant(*parts: Part) -> Message:
    return Message(role=Role.ASSISTANT, parts=parts)


def thought(kind: ReasoningKind, text: str = "", **seal: str) -> ThoughtPart:
    return ThoughtPart(thought=ReasoningPart(kind=kind, text=text, **seal))  # pyright: ignore[reportArgumentType]


CALL = CallPart(id="c1", name="f", arguments='{"a":1}')
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def test_settings() -> None:
    body, dropped = written(
        stream=True,
        n=2,
        max_output=7,
        temperature=0.5,
        top_p=1.0,
        top_k=4,
        stop=("a",),
        seed=1,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        verbosity="low",
        user="dana",
        service_tier="flex",
        cache_key="k",
        thinking=Thinking(budget=8000, enabled=True, summary="auto"),
        tools=(Tool(name="f", parameters=b'{"type":"object"}', strict=False, description="d"),),
        parallel_calls=False,
        dropped=("metadata",),
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "d",
                    "parameters": {"type": "object"},
                    "strict": False,
                },
            }
        ],
        "parallel_tool_calls": False,
        "max_completion_tokens": 7,
        "n": 2,
        "temperature": 0.5,
        "top_p": 1.0,
        "stop": ["a"],
        "seed": 1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "reasoning_effort": "medium",
        "verbosity": "low",
        "user": "dana",
        "service_tier": "flex",
        "prompt_cache_key": "k",
    }
    assert dropped == ("top_k", "reasoning.summary")


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        (Thinking(effort=Effort.XHIGH), "xhigh"),
        (Thinking(enabled=False), "none"),
        (Thinking(enabled=False, effort=Effort.HIGH), "none"),
        (Thinking(enabled=True, budget=1024), "minimal"),
        (Thinking(enabled=True), "medium"),
        (Thinking(enabled=True, adaptive=True), None),
        (Thinking(enabled=True, adaptive=True, effort=Effort.MAX), "max"),
    ],
)
def test_effort(thinking: Thinking, effort: str | None) -> None:
    body, _ = written(thinking=thinking)
    assert body.get("reasoning_effort") == effort


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (ToolChoice(mode=Choose.AUTO), "auto"),
        (ToolChoice(mode=Choose.REQUIRED), "required"),
        (ToolChoice(mode=Choose.TOOL, name="f"), {"type": "function", "function": {"name": "f"}}),
        (
            ToolChoice(mode=Choose.AUTO, allowed=("f",)),
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
        ),
    ],
)
def test_tool_choice(choice: ToolChoice, sent: object) -> None:
    body, _ = written(tools=(Tool(name="f"),), tool_choice=choice)
    assert body["tool_choice"] == sent
    assert "tool_choice" not in written(tool_choice=choice)[0]


def test_a_freeform_tool_takes_one_text() -> None:
    body, dropped = written(
        user(TextPart(text="x")),
        assistant(CallPart(id="c", name="patch", arguments='say "hi"', custom=True)),
        tools=(Tool(name="patch", custom=True, grammar=b'{"type":"text"}'),),
    )
    (tool,) = body["tools"]  # pyright: ignore[reportGeneralTypeIssues]
    assert tool["function"]["parameters"]["required"] == ["input"]
    call = body["messages"][1]["tool_calls"][0]["function"]  # pyright: ignore[reportIndexIssue]
    assert json.loads(call["arguments"]) == {"input": 'say "hi"'}
    assert dropped == ("tools[0].format",)


def test_output() -> None:
    assert written(output=OutputFormat())[0]["response_format"] == {"type": "json_object"}
    schema = OutputFormat(schema=b'{"type":"object"}', strict=True)
    assert written(output=schema)[0]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": {"type": "object"}, "strict": True},
    }


def test_a_conversation() -> None:
    body, dropped = written(
        user(TextPart(text="a", cache=True), TextPart(text="b")),
        assistant(TextPart(text="On"), TextPart(text=" it."), CALL),
        user(
            TextPart(text="and this"),
            ResultPart(call_id="c1", parts=(TextPart(text="42"), TextPart(text="43")), is_error=True),
        ),
        Message(role=Role.SYSTEM, parts=(TextPart(text="Be brief."),)),
        assistant(RefusalPart(text="No.")),
        assistant(),
        Message(role=Role.USER, parts=(), name="dana"),
        system=(TextPart(text="One."), TextPart(text="Two.", cache=True)),
    )
    assert body["messages"] == [
        {"role": "system", "content": "One.\n\nTwo."},
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "On it.", "tool_calls": [TOOL_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "42\n\n43"},
        {"role": "user", "content": "and this"},
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "", "name": "dana"},
    ]
    assert dropped == ("cache_control", "is_error")


def test_media() -> None:
    assert said(
        user(
            TextPart(text="See"),
            ImagePart(url="https://example.com/a.png", detail="high"),
            ImagePart(data="AAAA", media_type="image/png"),
            AudioPart(data="BBBB", format="mp3"),
            FilePart(data="CC==", media_type="application/pdf", name="a.pdf"),
            FilePart(file_id="file-1"),
            FilePart(text="plain", name="notes.txt"),
        )
    ) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "high"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "mp3"}},
                {
                    "type": "file",
                    "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,CC=="},
                },
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "text", "text": "notes.txt\n\nplain"},
            ],
        }
    ]


def test_images_of_results_follow_every_result() -> None:
    image = ImagePart(data="AAAA", media_type="image/png")
    messages = said(
        user(
            ResultPart(call_id="c1", parts=(TextPart(text="done"), image)),
            ResultPart(call_id="c2", parts=(image,)),
            ResultPart(call_id="c3"),
            TextPart(text="Well?"),
        )
    )
    shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert messages == [
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
        {"role": "tool", "tool_call_id": "c2", "content": MEDIA_FOLLOWS},
        {"role": "tool", "tool_call_id": "c3", "content": ""},
        {"role": "user", "content": [shown, shown, {"type": "text", "text": "Well?"}]},
    ]


def test_long_ids_still_meet() -> None:
    id_ = "toolu_" + "x" * 60
    call, result = said(assistant(CallPart(id=id_, name="f", arguments="{}")), user(ResultPart(call_id=id_)))
    sent = call["tool_calls"][0]["id"]  # pyright: ignore[reportIndexIssue]
    assert len(sent) <= 40
    assert sent == result["tool_call_id"]


@pytest.mark.parametrize(
    "part",
    [
        ImagePart(file_id="file-1"),
        FilePart(url="https://example.com/a.pdf"),
        CALL,
    ],
)
def test_what_a_user_cannot_say_here(part: Part) -> None:
    with pytest.raises(ProxyError) as caught:
        said(user(part))
    assert caught.value.kind is Kind.UNSUPPORTED_FEATURE


def test_an_assistant_shows_no_images() -> None:
    with pytest.raises(ProxyError) as caught:
        said(assistant(ImagePart(url="https://example.com/a.png")))
    assert caught.value.kind is Kind.UNSUPPORTED_FEATURE


RAW, SUMMARY, ENCRYPTED = ReasoningKind.RAW, ReasoningKind.SUMMARY, ReasoningKind.ENCRYPTED


@pytest.mark.parametrize(
    ("parts", "fields", "dropped"),
    [
        ([thought(RAW, "a"), CALL], {"reasoning_content": "a"}, ()),
        ([thought(RAW, "a"), thought(SUMMARY, "b"), CALL], {"reasoning_content": "a\n\nb"}, ()),
        ([thought(RAW, "a"), TextPart(text="x")], {}, ("reasoning",)),
        (
            [thought(RAW, "a", signature="s", format=ANTHROPIC_FORMAT), CALL],
            {"reasoning_content": "a"},
            ("reasoning",),
        ),
        ([thought(ENCRYPTED, "e", id="rs_1", format=RESPONSES_FORMAT), CALL], {}, ("reasoning",)),
        (
            [
                thought(SUMMARY, "a", id="rs_1", format="xai-responses-v1"),
                thought(ENCRYPTED, "e", id="rs_1", format="xai-responses-v1"),
                thought(RAW, "b", signature="s"),
            ],
            {
                "reasoning_details": [
                    {
                        "type": "reasoning.summary",
                        "summary": "a",
                        "id": "rs_1",
                        "format": "xai-responses-v1",
                        "index": 0,
                    },
                    {
                        "type": "reasoning.encrypted",
                        "data": "e",
                        "id": "rs_1",
                        "format": "xai-responses-v1",
                        "index": 0,
                    },
                    {"type": "reasoning.text", "text": "b", "signature": "s", "index": 2},
                ]
            },
            (),
        ),
        ([thought(ENCRYPTED, "e", format=XAI_FORMAT)], {"encrypted_content": "e"}, ()),
        (
            [thought(RAW, signature="g", format=GEMINI_FORMAT), TextPart(text="x")],
            {"extra_content": {"google": {"thought_signature": "g"}}},
            (),
        ),
    ],
)
def test_reasoning_sent_back(parts: list[Part], fields: dict[str, object], dropped: tuple[str, ...]) -> None:
    body, left_out = written(HI, assistant(*parts))
    message = body["messages"][1]  # pyright: ignore[reportIndexIssue]
    known = {"role", "content", "tool_calls"}
    assert {key: value for key, value in message.items() if key not in known} == fields
    assert left_out == dropped


def test_a_call_keeps_its_thought_signature() -> None:
    (message,) = said(assistant(CallPart(id="c1", name="f", arguments='{"a":1}', signature="Cv")))
    assert message["tool_calls"] == [{**TOOL_CALL, "extra_content": {"google": {"thought_signature": "Cv"}}}]
