"""Prompts written as Anthropic Messages requests and checked by the vendor's types: shared by their tests."""

from __future__ import annotations

import json
from typing import Any

from anthropic.types import message_create_params
from pydantic import TypeAdapter

from llm_proxy.chat.prompt import Message, Part, Prompt, Role, TextPart, Tool
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


def content(*messages: Message) -> list[list[Any]]:
    return [[turn["role"], turn["content"]] for turn in write(*messages)[0]["messages"]]
