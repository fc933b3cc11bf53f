"""Prompts written as OpenAI Responses requests and checked by the vendor's types: shared by their tests."""

from __future__ import annotations

import json
from typing import Any

from openai.types.responses import ResponseCreateParams
from pydantic import TypeAdapter

from llm_proxy.chat.prompt import Message, Prompt, Role, TextPart
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
