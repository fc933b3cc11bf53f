"""Prompts as Anthropic Messages requests: the vendor's types accept them, nothing is lost in silence."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from anthropic.types import message_create_params
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
from llm_proxy.wire.anthropic_messages.prompt_models import Reasons, takes
from llm_proxy.wire.anthropic_messages.prompt_write import write_prompt

OLD, BUDGETED, ADAPTIVE, NEW = (
    "claude-3-5-sonnet-latest",
    "claude-sonnet-4-5",
    "claude-opus-4-6",
    "claude-opus-5",
)
PARAMS = TypeAdapter[Any](message_create_params.MessageCreateParams)
KEYS = message_create_params.MessageCreateParamsBase.__annotations__.keys() | {
    "stream",
    "temperature",
    "top_p",
    "top_k",
}
"""The last three are gone from the SDK's types; models up to 4.6 take them."""
ASK = Message(role=Role.USER, parts=(TextPart(text="hi"),))
SCHEMA = b'{"type":"object","properties":{"path":{"type":"string"}}}'
READ = Tool(name="read", description="Reads.", parameters=SCHEMA)
EPHEMERAL = {"type": "ephemeral"}


def user(*parts: Part) -> Message:
    return Message(role=Role.USER, parts=parts)


def assistant(*parts: Part) -> Message:
    return Message(role=Role.ASSISTANT, parts=parts)


def system(text: str) -> Message:
    return Message(role=Role.SYSTEM, parts=(TextPart(text=text),))


def text(words: str) -> TextPart:
    return TextPart(text=words)


def write(*messages: Message, model: str = ADAPTIVE, **fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body, checked by the vendor's types, and what was left out."""
    written = write_prompt(Prompt(model=model, messages=messages or (ASK,), **fields))
    body = json.loads(written.body)
    walk(PARAMS.validate_python(in_blocks(body)))
    assert body.keys() <= KEYS
    return body, written.dropped


def in_blocks(value: Any, key: str = "") -> Any:
    """Text as the block it is short for, since the types take a string for an array that is read later."""
    if isinstance(value, dict):
        return {k: in_blocks(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [in_blocks(v) for v in value]
    return [{"type": "text", "text": value}] if key in ("content", "system") else value


def walk(value: Any) -> None:
    """Arrays are only checked as they are read."""
    if not isinstance(value, str | int | float | None):
        for inner in value.values() if isinstance(value, dict) else value:
            walk(inner)


def refused(*messages: Message, **fields: Any) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        write(*messages, **fields)
    assert not caught.value.retryable
    return caught.value


def content(*messages: Message) -> list[list[Any]]:
    return [[turn["role"], turn["content"]] for turn in write(*messages)[0]["messages"]]


def block(part: Part) -> Any:
    return content(user(part))[0][1][0]


def test_the_least_request() -> None:
    assert write() == (
        {
            "model": ADAPTIVE,
            "max_tokens": 4096,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        },
        (),
    )


def test_all_that_it_can_say() -> None:
    body, dropped = write(
        ASK,
        model=BUDGETED,
        system=(text("A"), text("B")),
        stream=True,
        tools=(msgspec_replace(READ, strict=True, cache=True),),
        tool_choice=ToolChoice(mode=Choose.AUTO),
        parallel_calls=False,
        max_output=50,
        temperature=0.5,
        top_k=3,
        stop=("END",),
        user="u",
        service_tier="default",
        output=OutputFormat(schema=SCHEMA, name="n", strict=True),
    )
    assert dropped == ()
    assert body == {
        "model": BUDGETED,
        "max_tokens": 50,
        "system": "A\n\nB",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "tools": [
            {
                "name": "read",
                "description": "Reads.",
                "input_schema": json.loads(SCHEMA),
                "strict": True,
                "cache_control": EPHEMERAL,
            }
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": json.loads(SCHEMA)}},
        "temperature": 0.5,
        "top_k": 3,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "service_tier": "standard_only",
        "stream": True,
    }


def msgspec_replace(tool: Tool, **fields: Any) -> Tool:
    return Tool(name=tool.name, description=tool.description, parameters=tool.parameters, **fields)


def test_hints_that_it_has_no_word_for_are_named_once() -> None:
    _, dropped = write(
        seed=1, presence_penalty=0.5, frequency_penalty=0.5, verbosity="low", cache_key="k",
        service_tier="flex", user="u" * 300, stop=("\n",), dropped=("seed", "logit_bias"),
    )  # fmt: skip
    assert set(dropped) == {
        "presence_penalty", "frequency_penalty", "verbosity", "prompt_cache_key", "service_tier", "user",
        "stop",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "turns"),
    [
        ((user(text("a")), user(text("b"))), [["user", ["a", "b"]]]),
        ((assistant(text("a")), user(text("b"))), [["user", ["."]], ["assistant", ["a"]], ["user", ["b"]]]),
        ((user(text("a")), assistant(text("Sum: \n "))), [["user", ["a"]], ["assistant", ["Sum:"]]]),
        ((user(text(""), text(" \n"), text("a")),), [["user", ["a"]]]),
        ((user(text("a")), assistant(text("")), user(text("b"))), [["user", ["a", "b"]]]),
        ((system("s"),), [["user", ["."]]]),
        ((user(text("a")), assistant(RefusalPart(text="no"))), [["user", ["a"]], ["assistant", ["no"]]]),
    ],
)
def test_turns_alternate_and_say_something(parts: tuple[Message, ...], turns: list[Any]) -> None:
    said = [[role, [b["text"] for b in blocks]] for role, blocks in content(*parts)]
    assert said == turns


def test_results_come_first_in_their_turn() -> None:
    turns = content(
        user(text("go")),
        assistant(CallPart(id="c1", name="read", arguments="{}")),
        user(text("and also")),
        user(ResultPart(call_id="c1", parts=(text("42"),))),
    )
    assert [b["type"] for b in turns[2][1]] == ["tool_result", "text"]


def test_system_messages_move_up() -> None:
    body, _ = write(ASK, system("later"), user(text("b")), system=(text("first"),))
    assert body["system"] == "first\n\nlater"
    assert [b["text"] for b in body["messages"][0]["content"]] == ["hi", "b"]


def test_a_marked_system_prompt_is_blocks() -> None:
    body, _ = write(system=(TextPart(text="A", cache=True), text(""), text("B")))
    assert body["system"] == [
        {"type": "text", "text": "A", "cache_control": EPHEMERAL},
        {"type": "text", "text": "B"},
    ]


@pytest.mark.parametrize(
    ("arguments", "custom", "written"),
    [
        ('{"a": [1, 2.0]}', False, {"a": [1, 2.0]}),
        ("", False, {}),
        (" ", False, {}),
        ("[1]", False, {"input": [1]}),
        ('"x"', False, {"input": "x"}),
        ("null", False, {"input": None}),
        ('{"a": ', False, {"input": '{"a": '}),
        ("plain\n", False, {"input": "plain\n"}),
        ('{"a": 1}', True, {"input": '{"a": 1}'}),
        ("*** Begin Patch", True, {"input": "*** Begin Patch"}),
    ],
)
def test_a_calls_input_is_an_object(arguments: str, custom: bool, written: object) -> None:
    call = CallPart(id="c1", name="f", arguments=arguments, custom=custom, cache=True)
    blocks = content(user(text("go")), assistant(call))[1][1]
    assert blocks == [
        {"type": "tool_use", "id": "c1", "name": "f", "input": written, "cache_control": EPHEMERAL}
    ]


def test_arguments_go_as_they_are_written() -> None:
    call = CallPart(id="c1", name="f", arguments='{"n": 1.0, "é": 1e3}')
    body = write_prompt(Prompt(model=ADAPTIVE, messages=(ASK, assistant(call)))).body
    assert '"input":{"n": 1.0, "é": 1e3}'.encode() in body


def test_calls_and_results_meet_by_ids_that_fit() -> None:
    odd = "call.with/odd chars" + "x" * 80
    turns = content(
        user(text("go")),
        assistant(CallPart(id=odd, name="f", arguments="{}")),
        user(ResultPart(call_id=odd)),
    )
    id_ = turns[1][1][0]["id"]
    assert len(id_) <= 64
    assert turns[2][1] == [{"type": "tool_result", "tool_use_id": id_}]


PNG = base64.b64encode(b"\x89PNG").decode()


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (
            ImagePart(data=PNG, media_type="image/jpg", cache=True),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/jpeg", "data": PNG},
                "cache_control": EPHEMERAL,
            },
        ),
        (
            ImagePart(url=f"data:image/webp;base64,{PNG}"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": PNG}},
        ),
        (
            ImagePart(url="https://x.example/a.png", detail="auto"),
            {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
        ),
        (ImagePart(file_id="f1"), {"type": "image", "source": {"type": "file", "file_id": "f1"}}),
        (
            FilePart(data="JVBE", name="q.pdf"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
                "title": "q.pdf",
            },
        ),
        (
            FilePart(data="data:text/plain,one%20two"),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "one two"}},
        ),
        (
            FilePart(data=PNG, media_type="image/png"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ),
        (
            FilePart(text="words"),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
        ),
        (
            FilePart(url="https://x.example/a.pdf"),
            {"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}},
        ),
        (FilePart(file_id="f1"), {"type": "document", "source": {"type": "file", "file_id": "f1"}}),
        (
            ResultPart(call_id="c", parts=(text("a"),), is_error=True, cache=True),
            {
                "type": "tool_result",
                "tool_use_id": "c",
                "content": "a",
                "is_error": True,
                "cache_control": EPHEMERAL,
            },
        ),
        (
            ResultPart(call_id="c", parts=(text("a"), text(""), ImagePart(file_id="f"))),
            {
                "type": "tool_result",
                "tool_use_id": "c",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image", "source": {"type": "file", "file_id": "f"}},
                ],
            },
        ),
    ],
)
def test_media_and_results(part: Part, written: object) -> None:
    assert block(part) == written


def test_the_detail_of_an_image_is_a_hint() -> None:
    assert write(user(ImagePart(file_id="f", detail="low")))[1] == ("detail",)


@pytest.mark.parametrize(
    ("kind", "messages", "fields", "param"),
    [
        (Kind.UNSUPPORTED_FEATURE, (ASK,), {"n": 2}, "n"),
        (Kind.UNSUPPORTED_FEATURE, (user(AudioPart(data="AAAA", format="wav")),), {}, "messages"),
        (
            Kind.UNSUPPORTED_FEATURE,
            (user(FilePart(data="UEsD", media_type="application/zip")),),
            {},
            "messages",
        ),
        (Kind.UNSUPPORTED_FEATURE, (user(FilePart(data="/w==", media_type="text/csv")),), {}, "messages"),
        (Kind.INVALID_REQUEST, (ASK,), {"tool_choice": ToolChoice(mode=Choose.REQUIRED)}, "tool_choice"),
    ],
)
def test_refusals(kind: Kind, messages: tuple[Message, ...], fields: dict[str, object], param: str) -> None:
    error = refused(*messages, **fields)
    assert (error.kind, error.param) == (kind, param)


FREEFORM = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("tool", "schema", "dropped"),
    [
        (Tool(name="t"), {"type": "object", "properties": {}}, ()),
        (Tool(name="t", parameters=b"{}"), {"type": "object", "properties": {}}, ()),
        (Tool(name="t", parameters=b"[]"), {"type": "object", "properties": {}}, ()),
        (Tool(name="t", parameters=b'{"properties":{}}'), {"properties": {}, "type": "object"}, ()),
        (Tool(name="t", custom=True, grammar=b'{"type":"grammar"}'), FREEFORM, ("tools.format",)),
    ],
)
def test_every_tool_has_a_schema(tool: Tool, schema: object, dropped: tuple[str, ...]) -> None:
    body, left_out = write(tools=(tool,))
    assert (body["tools"], left_out) == ([{"name": "t", "input_schema": schema}], dropped)


@pytest.mark.parametrize(("model", "count"), [(OLD, 1), (NEW, 21)])
def test_strict_tools_where_they_are_taken(model: str, count: int) -> None:
    tools = tuple(Tool(name=f"t{i}", strict=True) for i in range(count))
    body, dropped = write(model=model, tools=tools)
    assert dropped == ("tools.strict",)
    assert all("strict" not in tool for tool in body["tools"])


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice(mode=Choose.NONE), False, {"type": "none"}),
        (ToolChoice(mode=Choose.REQUIRED), None, {"type": "any"}),
        (
            ToolChoice(mode=Choose.TOOL, name="read"),
            False,
            {"type": "tool", "name": "read", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_tool_choice(choice: ToolChoice | None, parallel: bool | None, written: object) -> None:
    body, _ = write(tools=(READ,), tool_choice=choice, parallel_calls=parallel)
    assert body.get("tool_choice") == written


def test_only_allowed_tools_are_declared() -> None:
    choice = ToolChoice(mode=Choose.REQUIRED, allowed=("b",))
    body, _ = write(tools=(Tool(name="a"), Tool(name="b")), tool_choice=choice)
    assert [tool["name"] for tool in body["tools"]] == ["b"]


def test_a_choice_without_tools_goes() -> None:
    assert "tool_choice" not in write(tool_choice=ToolChoice(mode=Choose.NONE))[0]


@pytest.mark.parametrize(
    ("model", "output", "words"),
    [
        (NEW, OutputFormat(), "one JSON object"),
        (OLD, OutputFormat(schema=SCHEMA), SCHEMA.decode()),
    ],
)
def test_json_that_is_asked_for_in_words(model: str, output: OutputFormat, words: str) -> None:
    body, dropped = write(model=model, output=output, system=(text("Be brief."),))
    assert body["system"].startswith("Be brief.\n\n")
    assert words in body["system"]
    assert ("output_config" in body, dropped) == (False, ("response_format",))


@pytest.mark.parametrize(
    ("model", "reasons", "unasked", "always", "sampling", "schemas"),
    [
        ("claude-2.1", Reasons.NEVER, False, False, True, False),
        ("claude-instant-v1", Reasons.NEVER, False, False, True, False),
        ("claude-3-5-haiku-20241022", Reasons.NEVER, False, False, True, False),
        ("claude-3-7-sonnet-20250219", Reasons.BY_BUDGET, False, False, True, False),
        ("claude-sonnet-4-20250514", Reasons.BY_BUDGET, False, False, True, False),
        ("claude-opus-4-1", Reasons.BY_BUDGET, False, False, True, True),
        ("claude-opus-4-5-20251101", Reasons.BY_BUDGET, False, False, True, True),
        ("claude-sonnet-4-6", Reasons.ADAPTIVELY, False, False, True, True),
        ("us.anthropic.claude-opus-4-6-v1:0", Reasons.ADAPTIVELY, False, False, True, True),
        ("anthropic/claude-4.7-opus", Reasons.ADAPTIVELY, False, False, False, True),
        ("claude-sonnet-5", Reasons.ADAPTIVELY, True, False, False, True),
        ("claude-haiku-5-5", Reasons.ADAPTIVELY, True, False, False, True),
        ("claude-opus-5-5", Reasons.ADAPTIVELY, True, True, False, True),
        ("claude-fable-5", Reasons.ADAPTIVELY, True, True, False, True),
        ("claude-mythos-preview", Reasons.ADAPTIVELY, True, True, False, True),
        ("kimi-k2-thinking", Reasons.BY_BUDGET, False, False, True, True),
    ],
)
def test_what_models_take(
    model: str, reasons: Reasons, unasked: bool, always: bool, sampling: bool, schemas: bool
) -> None:
    it = takes(model)
    assert (it.reasons, it.unasked, it.always) == (reasons, unasked, always)
    assert (it.sampling, it.schemas) == (sampling, schemas)


ADAPT = {"type": "adaptive", "display": "summarized"}
FORCED = ToolChoice(mode=Choose.REQUIRED)


@pytest.mark.parametrize(
    ("model", "fields", "thinking", "effort", "dropped"),
    [
        (ADAPTIVE, {"thinking": None}, None, None, ()),
        (ADAPTIVE, {"thinking": Thinking(summary="auto")}, None, None, ()),
        (OLD, {"thinking": Thinking(effort=Effort.HIGH)}, None, None, ("reasoning_effort",)),
        (OLD, {"thinking": Thinking(effort=Effort.NONE)}, None, None, ()),
        # a budget
        (
            BUDGETED,
            {"thinking": Thinking(effort=Effort.MEDIUM), "max_output": 64_000},
            {"type": "enabled", "budget_tokens": 8_192},
            None,
            (),
        ),
        (
            BUDGETED,
            {"thinking": Thinking(effort=Effort.HIGH)},
            {"type": "enabled", "budget_tokens": 3_072},
            None,
            (),
        ),
        (
            BUDGETED,
            {"thinking": Thinking(enabled=True, budget=50_000, summary="omitted")},
            {"type": "enabled", "budget_tokens": 4_095, "display": "omitted"},
            None,
            (),
        ),
        (
            BUDGETED,
            {"thinking": Thinking(effort=Effort.LOW), "max_output": 1_025},
            {"type": "enabled", "budget_tokens": 1_024},
            None,
            (),
        ),
        (
            BUDGETED,
            {"thinking": Thinking(effort=Effort.LOW), "max_output": 1_024},
            None,
            None,
            ("reasoning_effort",),
        ),
        (BUDGETED, {"thinking": Thinking(enabled=False)}, None, None, ()),
        (
            BUDGETED,
            {"thinking": Thinking(effort=Effort.LOW), "tools": (READ,), "tool_choice": FORCED},
            None,
            None,
            ("thinking",),
        ),
        # adaptive
        (ADAPTIVE, {"thinking": Thinking(effort=Effort.MINIMAL)}, ADAPT, "low", ()),
        (ADAPTIVE, {"thinking": Thinking(effort=Effort.XHIGH)}, ADAPT, "high", ()),
        (ADAPTIVE, {"thinking": Thinking(effort=Effort.MAX), "max_output": 100}, ADAPT, "max", ()),
        (ADAPTIVE, {"thinking": Thinking(enabled=True, budget=16_384)}, ADAPT, "high", ()),
        (ADAPTIVE, {"thinking": Thinking(enabled=True, adaptive=True)}, ADAPT, None, ()),
        (
            NEW,
            {"thinking": Thinking(effort=Effort.XHIGH, summary="omitted")},
            {"type": "adaptive", "display": "omitted"},
            "xhigh",
            (),
        ),
        (ADAPTIVE, {"thinking": Thinking(effort=Effort.NONE)}, None, None, ()),
        (NEW, {"thinking": Thinking(effort=Effort.NONE)}, {"type": "disabled"}, None, ()),
        (NEW, {"thinking": Thinking(enabled=False, effort=Effort.LOW)}, {"type": "disabled"}, "low", ()),
        ("claude-fable-5", {"thinking": Thinking(enabled=False)}, None, None, ("thinking",)),
        (
            "claude-fable-5",
            {"thinking": Thinking(effort=Effort.NONE)},
            None,
            None,
            ("reasoning_effort",),
        ),
        (
            ADAPTIVE,
            {"thinking": Thinking(effort=Effort.LOW), "tools": (READ,), "tool_choice": FORCED},
            None,
            "low",
            ("thinking",),
        ),
        (NEW, {"thinking": None, "tools": (READ,), "tool_choice": FORCED}, {"type": "disabled"}, None, ()),
    ],
)
def test_thinking(
    model: str, fields: dict[str, Any], thinking: object, effort: str | None, dropped: tuple[str, ...]
) -> None:
    body, left_out = write(model=model, **fields)
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == effort
    assert left_out == dropped


def native(words: str) -> ThoughtPart:
    part = ReasoningPart(kind=ReasoningKind.RAW, text=words, signature="EqoB", format=ANTHROPIC_FORMAT)
    return ThoughtPart(thought=part)


REDACTED = ThoughtPart(
    thought=ReasoningPart(kind=ReasoningKind.REDACTED, text="Emw", format=ANTHROPIC_FORMAT)
)
FOREIGN = ThoughtPart(
    thought=ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="gAAA", id="rs_1", format=RESPONSES_FORMAT)
)
CALL = CallPart(id="c1", name="read", arguments="{}")
RESULT = user(ResultPart(call_id="c1"))


def test_signed_thinking_goes_back_as_it_was() -> None:
    said = content(ASK, assistant(native("Hm."), REDACTED, CALL), RESULT)[1][1]
    assert said[:2] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "EqoB"},
        {"type": "redacted_thinking", "data": "Emw"},
    ]


def test_what_another_vendor_sealed_is_left_out_and_named_once() -> None:
    plain = ThoughtPart(thought=ReasoningPart(kind=ReasoningKind.RAW, text="Hm."))
    body, dropped = write(ASK, assistant(plain, FOREIGN, text("a")), user(text("b")))
    assert [b["type"] for b in body["messages"][1]["content"]] == ["text"]
    assert dropped == ("reasoning",)


@pytest.mark.parametrize(
    ("model", "messages", "thinks"),
    [
        (BUDGETED, (ASK, assistant(native("Hm."), CALL), RESULT), True),
        (BUDGETED, (ASK, assistant(REDACTED, CALL), RESULT), True),
        (BUDGETED, (ASK, assistant(CALL), RESULT), False),
        (ADAPTIVE, (ASK, assistant(CALL), RESULT), True),
        (BUDGETED, (ASK, assistant(native("Hm."), CALL), RESULT, assistant(CALL), RESULT), True),
        (BUDGETED, (ASK, assistant(CALL), RESULT, assistant(native("Hm."), CALL), RESULT), False),
        (BUDGETED, (ASK, assistant(CALL), RESULT, assistant(text("ok")), user(text("next"))), True),
        (
            BUDGETED,
            (ASK, assistant(CALL), user(*RESULT.parts, text("go on")), assistant(native("x"), CALL), RESULT),
            True,
        ),
    ],
)
def test_thinking_in_an_open_turn(model: str, messages: tuple[Message, ...], thinks: bool) -> None:
    body, dropped = write(*messages, model=model, thinking=Thinking(effort=Effort.LOW), tools=(READ,))
    assert ("thinking" in body, "thinking" in dropped) == (thinks, not thinks)


@pytest.mark.parametrize(
    ("model", "fields", "kept", "dropped"),
    [
        (BUDGETED, {"temperature": 1.5}, {"temperature": 1.0}, {"temperature"}),
        (BUDGETED, {"temperature": 0.2, "top_p": 0.9}, {"temperature": 0.2}, {"top_p"}),
        (OLD, {"temperature": 0.2, "top_p": 0.9}, {"temperature": 0.2, "top_p": 0.9}, set[str]()),
        (NEW, {"temperature": 0.2, "top_p": 0.9, "top_k": 3}, {}, {"temperature", "top_p", "top_k"}),
        (NEW, {"temperature": 1}, {}, set[str]()),
        (
            BUDGETED,
            {"temperature": 0.2, "top_k": 3, "top_p": 0.5, "thinking": Thinking(effort=Effort.LOW)},
            {},
            {"temperature", "top_k", "top_p"},
        ),
        (
            BUDGETED,
            {"top_p": 0.97, "thinking": Thinking(effort=Effort.LOW)},
            {"top_p": 0.97},
            set[str](),
        ),
    ],
)
def test_sampling(model: str, fields: dict[str, Any], kept: dict[str, float], dropped: set[str]) -> None:
    body, left_out = write(model=model, **fields)
    assert {key: body[key] for key in ("temperature", "top_p", "top_k") if key in body} == kept
    assert set(left_out) == dropped
