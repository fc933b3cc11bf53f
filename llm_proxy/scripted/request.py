"""A chat completions request, as far as a script looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import msgspec


class RequestError(ValueError):
    """A body that no chat completions API would take."""


class _ContentPart(msgspec.Struct):
    text: str | None = None


class _Function(msgspec.Struct):
    name: str = ""


class _Call(msgspec.Struct):
    id: str = ""
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct):
    role: str
    content: str | list[_ContentPart] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Body(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None


class _Sizes(msgspec.Struct):
    messages: msgspec.Raw
    tools: msgspec.Raw = msgspec.Raw(b"")


class ScriptedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `when:` may ask about, and what the reply's ids and token counts are made from."""

    model: str
    stream: bool = False
    include_usage: bool = False
    n: int = 1
    turn: int = 0
    last: dict[str, str] = {}
    """Text of the last message of each role."""
    tools_answered: frozenset[str] = frozenset()
    has_tool_result: bool = False
    headers: dict[str, str] = {}
    """By lower-case name."""
    input_bytes: int = 0
    """Size of the messages and tools."""
    digest: bytes = b""


_body = msgspec.json.Decoder(_Body)
_sizes = msgspec.json.Decoder(_Sizes)


def parse_request(body: bytes, headers: Mapping[str, str] | None = None) -> ScriptedRequest:
    """Read a request's body. RequestError where it isn't JSON or has no model or messages."""
    try:
        parsed, sizes = _body.decode(body), _sizes.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request is no chat completion: {error}") from None
    n = 1 if parsed.n is None else parsed.n
    if not 1 <= n <= 128:
        raise RequestError(f"n is {n}; use 1 to 128")
    options = parsed.stream_options
    return ScriptedRequest(
        model=parsed.model,
        stream=bool(parsed.stream),
        include_usage=options is not None and bool(options.include_usage),
        n=n,
        turn=sum(message.role == "assistant" for message in parsed.messages),
        last={message.role: _text(message) for message in parsed.messages},
        tools_answered=_answered(parsed.messages),
        has_tool_result=any(message.role == "tool" for message in parsed.messages),
        headers={name.lower(): value for name, value in (headers or {}).items()},
        input_bytes=len(bytes(sizes.messages)) + len(bytes(sizes.tools)),
        digest=sha256(body).digest(),
    )


def _text(message: _Message) -> str:
    match message.content:
        case str(text):
            return text
        case None:
            return ""
        case parts:
            return "\n".join(part.text for part in parts if part.text is not None)


def _answered(messages: list[_Message]) -> frozenset[str]:
    names = {call.id: call.function.name for m in messages for call in m.tool_calls or ()}
    answered = (m.tool_call_id for m in messages if m.role == "tool")
    return frozenset(names[id_] for id_ in answered if id_ in names)
