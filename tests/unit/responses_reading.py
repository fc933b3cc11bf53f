"""OpenAI Responses requests read as prompts: shared by their tests."""

from __future__ import annotations

import json
from typing import Any

from llm_proxy.chat.prompt import Message, Prompt, Role, TextPart
from llm_proxy.wire.openai_responses.prompt_read import read_prompt
from llm_proxy.wire.openai_responses.request import parse

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": True}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edits files.", "format": GRAMMAR}
CRM = {
    "type": "namespace",
    "name": "crm",
    "description": "Customers.",
    "tools": [
        {"type": "function", "name": "get_customer", "description": "One.", "parameters": SCHEMA},
        {"type": "custom", "name": "query", "format": {"type": "text"}},
    ],
}


def read(**body: Any) -> Prompt:
    return read_prompt(parse(json.dumps({"model": "gpt-5.2", "input": "Hi", **body}).encode()))


def messages(*items: Any, **body: Any) -> tuple[Message, ...]:
    return read(input=list(items), **body).messages


def user(*parts: Any) -> Message:
    return Message(role=Role.USER, parts=parts)


def assistant(*parts: Any) -> Message:
    return Message(role=Role.ASSISTANT, parts=parts)


def text(words: str, **more: Any) -> TextPart:
    return TextPart(text=words, **more)
