"""OpenAI chat requests as neutral prompts."""

from __future__ import annotations

import json

import pytest

from llm_proxy.chat.events import ReasoningKind
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
from llm_proxy.wire.openai_chat.prompt_read import read_prompt
from llm_proxy.wire.openai_chat.request import parse

HI = {"role": "user", "content": "hi"}
CACHE = {"cache_control": {"type": "ephemeral"}}


def prompt(*messages: object, **fields: object) -> Prompt:
    return read_prompt(parse(json.dumps({"model": "m", "messages": messages or [HI], **fields}).encode()))


def user(*parts: object) -> tuple[Part, ...]:
    (message,) = prompt({"role": "user", "content": parts}).messages
    return message.parts


def refused(*messages: object, **fields: object) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        prompt(*messages, **fields)
    assert not caught.value.retryable
    return caught.value


def test_the_least_request() -> None:
    assert prompt() == Prompt(model="m", messages=(Message(role=Role.USER, parts=(TextPart(text="hi"),)),))


def test_settings() -> None:
    read = prompt(
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": False},
        n=2,
        max_tokens=9,
        max_completion_tokens=7,
        temperature=0.5,
        top_p=1,
        top_k=40,
        stop="END",
        seed=3,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
        parallel_tool_calls=False,
        reasoning_effort="low",
        verbosity="high",
        user="dana",
        safety_identifier="dana-hash",
        service_tier="flex",
        prompt_cache_key="k",
        logprobs=True,
        top_logprobs=None,
        metadata={"a": "b"},
        modalities=["text"],
        logit_bias={"1": 1},
    )
    assert read == Prompt(
        model="m",
        messages=prompt().messages,
        stream=True,
        include_usage=True,
        n=2,
        max_output=7,
        temperature=0.5,
        top_p=1,
        top_k=40,
        stop=("END",),
        seed=3,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
        parallel_calls=False,
        thinking=Thinking(effort=Effort.LOW),
        verbosity="high",
        user="dana",
        service_tier="flex",
        cache_key="k",
        dropped=(
            "stream_options.include_obfuscation",
            "safety_identifier",
            "logprobs",
            "metadata",
            "modalities",
            "logit_bias",
        ),
    )
    assert prompt(stop=["a", "b"]).stop == ("a", "b")
    assert prompt(safety_identifier="x").user == "x"


def test_instructions_lead_or_stand_in_the_middle() -> None:
    read = prompt(
        {"role": "system", "content": "One."},
        {"role": "developer", "content": [{"type": "text", "text": "Two.", **CACHE}]},
        HI,
        {"role": "system", "content": "Three."},
    )
    assert read.system == (TextPart(text="One."), TextPart(text="Two.", cache=True))
    assert read.messages[1:] == (Message(role=Role.SYSTEM, parts=(TextPart(text="Three."),)),)


def test_a_cache_mark_on_a_message_stands_behind_its_last_part() -> None:
    read = prompt({"role": "system", "content": "One.", **CACHE}, {**HI, **CACHE}, {"role": "user", **CACHE})
    assert read.system == (TextPart(text="One.", cache=True),)
    assert [message.parts for message in read.messages] == [(TextPart(text="hi", cache=True),), ()]
    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert prompt({**HI, **hour}).dropped == ()
    assert prompt({"role": "user", "content": [{"type": "text", "text": "a", **hour}]}).dropped == (
        "cache_control.ttl",
    )


def test_a_users_parts() -> None:
    assert user(
        {"type": "text", "text": "What is", **CACHE},
        {"type": "text", "text": ""},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}, **CACHE},
        {"type": "image_url", "image_url": "http://example.com/b.png"},
        {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,CC==", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "CC==", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ) == (
        TextPart(text="What is", cache=True),
        ImagePart(url="https://example.com/a.png", detail="low"),
        ImagePart(data="AAAA", media_type="image/png", cache=True),
        ImagePart(url="http://example.com/b.png"),
        AudioPart(data="BBBB", format="wav"),
        FilePart(name="a.pdf", data="CC==", media_type="application/pdf"),
        FilePart(name="a.pdf", data="CC==", media_type="application/pdf"),
        FilePart(file_id="file-1"),
    )


def test_an_assistants_message() -> None:
    read = prompt(
        HI,
        {
            "role": "assistant",
            "name": "helper",
            "content": [{"type": "text", "text": "Two calls."}, {"type": "audio", "id": "a"}],
            "refusal": "Not three.",
            "reasoning_content": "Both.",
            "audio": {"id": "audio_1"},
            "annotations": [],
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"a":1}'},
                    "extra_content": {"google": {"thought_signature": "Cv"}},
                },
                {"id": "c2", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "ok", **CACHE}]},
        HI,
    )
    assert read.messages[1:3] == (
        Message(
            role=Role.ASSISTANT,
            name="helper",
            parts=(
                ThoughtPart(thought=ReasoningPart(kind=ReasoningKind.RAW, text="Both.")),
                TextPart(text="Two calls."),
                RefusalPart(text="Not three."),
                CallPart(id="c1", name="f", arguments='{"a":1}', signature="Cv"),
                CallPart(id="c2", name="patch", arguments="*** Begin", custom=True),
            ),
        ),
        Message(
            role=Role.USER,
            parts=(
                ResultPart(call_id="c1", parts=(TextPart(text="42"),)),
                ResultPart(call_id="c2", parts=(TextPart(text="ok", cache=True),), custom=True),
            ),
        ),
    )
    assert len(read.messages) == 4
    assert read.dropped == ("messages[1].audio", "messages[1].content[1] (audio)")


def test_legacy_calls_get_ids_by_their_names() -> None:
    function = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    answer = {"role": "function", "name": "f", "content": "1"}
    read = prompt(HI, function, answer, function, answer, functions=[{"name": "f"}], function_call="auto")
    parts = [part for message in read.messages[1:] for part in message.parts]
    assert [part.id if isinstance(part, CallPart) else getattr(part, "call_id", "") for part in parts] == [
        "call_1_f",
        "call_1_f",
        "call_2_f",
        "call_2_f",
    ]
    assert read.tools == (Tool(name="f"),)
    assert (read.tool_choice, read.parallel_calls) == (ToolChoice(mode=Choose.AUTO), False)
    forced = prompt(HI, functions=[{"name": "f"}], function_call={"name": "f"})
    assert forced.tool_choice == ToolChoice(mode=Choose.TOOL, name="f")


def test_tools() -> None:
    read = prompt(
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "d",
                    "parameters": {"type": "object"},
                    "strict": True,
                },
                **CACHE,
            },
            {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}},
            {"type": "web_search"},
            {"type": "function", "function": {"name": "h", "parameters": None}},
        ]
    )
    assert read.tools == (
        Tool(name="f", description="d", parameters=b'{"type": "object"}', strict=True, cache=True),
        Tool(name="g", custom=True, grammar=b'{"type": "text"}'),
        Tool(name="h"),
    )
    assert read.dropped == ("tools[2] (web_search)",)


@pytest.mark.parametrize(
    ("choice", "read"),
    [
        ("auto", ToolChoice(mode=Choose.AUTO)),
        ("none", ToolChoice(mode=Choose.NONE)),
        ("required", ToolChoice(mode=Choose.REQUIRED)),
        ("any", ToolChoice(mode=Choose.REQUIRED)),
        ({"type": "auto"}, ToolChoice(mode=Choose.AUTO)),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice(mode=Choose.TOOL, name="f")),
        ({"type": "custom", "custom": {"name": "g"}}, ToolChoice(mode=Choose.TOOL, name="g")),
        ({"type": "tool", "name": "f"}, ToolChoice(mode=Choose.TOOL, name="f")),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [
                        {"type": "function", "function": {"name": "f"}},
                        {"type": "custom", "custom": {"name": "g"}},
                    ],
                },
            },
            ToolChoice(mode=Choose.REQUIRED, allowed=("f", "g")),
        ),
        (None, None),
    ],
)
def test_tool_choice(choice: object, read: ToolChoice | None) -> None:
    assert prompt(tool_choice=choice).tool_choice == read


@pytest.mark.parametrize(
    ("fields", "thinking", "dropped"),
    [
        ({"reasoning_effort": "none"}, Thinking(effort=Effort.NONE), ()),
        ({"reasoning_effort": "default"}, None, ("reasoning_effort",)),
        ({"reasoning": {"effort": "high"}}, Thinking(effort=Effort.HIGH), ()),
        (
            {"reasoning": {"max_tokens": 2000, "exclude": True}},
            Thinking(budget=2000),
            ("reasoning.exclude",),
        ),
        ({"reasoning": {"enabled": True}}, Thinking(enabled=True), ()),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            Thinking(enabled=True, budget=1024),
            (),
        ),
        ({"thinking": {"type": "disabled"}}, Thinking(enabled=False), ()),
        (
            {"thinking": {"type": "adaptive", "display": "summarized"}, "reasoning_effort": "max"},
            Thinking(enabled=True, adaptive=True, effort=Effort.MAX, summary="summarized"),
            (),
        ),
        ({"reasoning": {}, "thinking": None}, None, ()),
    ],
)
def test_reasoning(fields: dict[str, object], thinking: Thinking | None, dropped: tuple[str, ...]) -> None:
    read = prompt(**fields)
    assert (read.thinking, read.dropped) == (thinking, dropped)


def test_response_format() -> None:
    schema = {"name": "n", "description": "d", "schema": {"type": "object"}, "strict": True}
    assert prompt(response_format={"type": "text"}).output is None
    assert prompt(response_format={"type": "json_object"}).output == OutputFormat()
    assert prompt(response_format={"type": "json_schema", "json_schema": schema}).output == OutputFormat(
        schema=b'{"type": "object"}', name="n", description="d", strict=True
    )


@pytest.mark.parametrize(
    ("messages", "fields", "kind", "param"),
    [
        ([HI], {"modalities": ["text", "audio"]}, Kind.UNSUPPORTED_FEATURE, "modalities"),
        ([HI], {"response_format": {"type": "grammar"}}, Kind.UNSUPPORTED_FEATURE, "response_format"),
        ([HI], {"tool_choice": {"type": "web_search"}}, Kind.UNSUPPORTED_FEATURE, "tool_choice"),
        ([HI], {"tools": [{"function": {"name": ""}}]}, Kind.INVALID_REQUEST, "tools[0]"),
        ([HI], {"temperature": "hot"}, Kind.INVALID_REQUEST, "temperature"),
        ([{"role": "user", "content": 5}], {}, Kind.INVALID_REQUEST, "messages[0].content"),
        ([{"role": "robot", "content": "x"}], {}, Kind.INVALID_REQUEST, "messages[0].role"),
        ([{"role": "tool", "content": "x"}], {}, Kind.INVALID_REQUEST, "messages[0].tool_call_id"),
        (
            [{"role": "assistant", "tool_calls": [{"id": "a"}]}],
            {},
            Kind.INVALID_REQUEST,
            "messages[0].tool_calls[0]",
        ),
    ],
)
def test_what_is_refused(messages: list[object], fields: dict[str, object], kind: Kind, param: str) -> None:
    error = refused(*messages, **fields)
    assert (error.kind, error.param) == (kind, param)


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "hologram"}, Kind.UNSUPPORTED_FEATURE),
        ({"type": "video_url", "video_url": {"url": "https://x"}}, Kind.UNSUPPORTED_FEATURE),
        ({"type": "image_url", "image_url": {"url": "AAAA"}}, Kind.INVALID_REQUEST),
        ({"type": "image_url", "image_url": {"url": "data:image/png,AAAA"}}, Kind.INVALID_REQUEST),
        ({"type": "image_url", "image_url": {"url": "ftp://x/y.png"}}, Kind.INVALID_REQUEST),
        ({"type": "input_audio"}, Kind.INVALID_REQUEST),
        ({"type": "file", "file": {}}, Kind.INVALID_REQUEST),
    ],
)
def test_parts_that_are_refused(part: dict[str, object], kind: Kind) -> None:
    for role in ("user", "tool"):
        error = refused({"role": role, "tool_call_id": "c", "content": [part]})
        assert (error.kind, str(error.param).startswith("messages[0].content[0]")) == (kind, True)


def test_instructions_are_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    assert refused({"role": "system", "content": [image]}).kind is Kind.UNSUPPORTED_FEATURE
