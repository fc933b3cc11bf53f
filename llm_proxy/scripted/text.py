"""What every dialect's rendering shares: pieces of text, counted tokens, ids of calls, and JSON as bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from llm_proxy.scripted.request import ScriptedRequest
from llm_proxy.scripted.script import Content, JsonObject, ToolCallScript, Turn

CREATED = 1_767_225_600
"""2026-01-01: replies are the same on every day."""
ARGUMENT_PIECES = 4
_BYTES_PER_TOKEN = 4
_WORD = re.compile(r"\s*\S+\s*\Z|\s*\S+|\s+")


@dataclass(frozen=True, slots=True)
class Tokens:
    """`input` includes `cached` and `cache_write`; `output` includes `reasoning`."""

    input: int
    output: int
    cached: int
    cache_write: int
    reasoning: int


def count(turn: Turn, request: ScriptedRequest, contents: Sequence[Content]) -> Tokens | None:
    """The tokens to report; None where the script reports none."""
    given = turn.usage
    if given == "none":
        return None
    said = sum(_size(content) for content in contents)
    reasoning = sum(len(content.reasoning.encode()) for content in contents)
    return Tokens(
        tokens(request.input_bytes) if given.input is None else given.input,
        tokens(said) if given.output is None else given.output,
        given.cached,
        given.cache_write,
        tokens(reasoning) if given.reasoning is None else given.reasoning,
    )


def tokens(size: int) -> int:
    """Tokens of so many bytes."""
    return -(-size // _BYTES_PER_TOKEN)


def _size(content: Content) -> int:
    said = content.reasoning + content.text + content.refusal
    return len(said.encode()) + sum(len((c.name + arguments(c)).encode()) for c in content.tool_calls)


def finish(content: Content) -> str:
    """The finish reason in chat's words."""
    return content.finish or ("tool_calls" if content.tool_calls else "stop")


def call_id(prefix: str, request: ScriptedRequest, choice: int, position: int, call: ToolCallScript) -> str:
    """The script's id, or one that follows from the request."""
    seed = request.digest + f"/{choice}/{position}".encode()
    return call.id or prefix + sha256(seed).hexdigest()[:24]


def is_custom(call: ToolCallScript, request: ScriptedRequest) -> bool:
    """Whether the call goes out as plain text, because the request declares its tool so."""
    return call.input is not None and call.name in request.custom_tools


def flat_name(call: ToolCallScript) -> str:
    """The tool's name where a dialect has no namespaces."""
    return call.name if call.namespace is None else f"{call.namespace}__{call.name}"


def arguments(call: ToolCallScript) -> str:
    """The arguments as JSON, or what the script says they are."""
    if call.input is not None:
        return msgspec.json.encode({"input": call.input}).decode()
    given = call.arguments
    return given if isinstance(given, str) else msgspec.json.encode(given).decode()


def pieces(text: str, count: int | None) -> list[str]:
    """Non-empty pieces that join to the text: `count` of nearly one size, or words with their spaces."""
    if count is None:
        return _WORD.findall(text)
    count = min(count, len(text))
    return [text[len(text) * i // count : len(text) * (i + 1) // count] for i in range(count)]


def event(name: str, value: JsonObject) -> bytes:
    """A named server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"


def data(value: JsonObject) -> bytes:
    """A server-sent event without a name."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def pretty(value: JsonObject) -> bytes:
    """A JSON body as OpenAI lays it out."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
