"""Neutral requests written for an upstream that speaks Responses, held against OpenAI's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.chat.prompt import Effort, OutputFormat, Prompt, TextPart, Thinking, Tool
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_responses.prompt_write import write_prompt
from tests.unit.responses_writing import RAW_SCHEMA, SCHEMA, prompt, user, written


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
