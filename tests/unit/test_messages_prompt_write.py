"""Prompts as Anthropic Messages requests: the vendor's types accept them, nothing is lost in silence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.chat.prompt import (
    AudioPart,
    CallPart,
    Choose,
    FilePart,
    Message,
    OutputFormat,
    RefusalPart,
    ResultPart,
    TextPart,
    Tool,
    ToolChoice,
)
from llm_proxy.errors import Kind, ProxyError
from tests.unit.messages_writing import (
    ADAPTIVE,
    ASK,
    BUDGETED,
    EPHEMERAL,
    READ,
    SCHEMA,
    assistant,
    content,
    system,
    text,
    user,
    write,
)


def refused(*messages: Message, **fields: Any) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        write(*messages, **fields)
    assert not caught.value.retryable
    return caught.value


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
