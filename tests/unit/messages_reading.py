"""Anthropic Messages requests read as prompts: shared by their tests."""

from __future__ import annotations

import json

import msgspec

from llm_proxy.chat.prompt import Prompt
from llm_proxy.wire.anthropic_messages.prompt_read import read_prompt
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import object_spans

HELLO: list[object] = [{"role": "user", "content": "hi"}]
CACHE = {"cache_control": {"type": "ephemeral"}}
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
RAWS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def request(**fields: object) -> WireRequest:
    body = json.dumps({"model": "claude-opus-4-6", "max_tokens": 100, "messages": HELLO, **fields}).encode()
    return WireRequest(body=body, model="claude-opus-4-6", spans=object_spans(body, RAWS(body)))


def read(**fields: object) -> Prompt:
    return read_prompt(request(**fields))
