"""A chat completions request, as far as a script looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import msgspec

from llm_proxy.scripted.request import Dialect, Line, RequestError, ScriptedRequest, talk_of


class _ContentPart(msgspec.Struct):
    text: str | None = None


class _Named(msgspec.Struct):
    name: str = ""


class _Call(msgspec.Struct):
    id: str = ""
    function: _Named = msgspec.field(default_factory=_Named)
    custom: _Named | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_ContentPart] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    reasoning_content: msgspec.Raw = msgspec.Raw(b"null")


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


class _Tool(msgspec.Struct):
    custom: _Named | None = None


_body = msgspec.json.Decoder(_Body)
_sizes = msgspec.json.Decoder(_Sizes)
_tools = msgspec.json.Decoder(list[_Tool])


def read_chat(body: bytes, headers: Mapping[str, str]) -> ScriptedRequest:
    """RequestError where it isn't JSON or has no model or messages."""
    try:
        parsed, sizes = _body.decode(body), _sizes.decode(body)
        custom = _custom(bytes(sizes.tools))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request is no chat completion: {error}") from None
    n = 1 if parsed.n is None else parsed.n
    if not 1 <= n <= 128:
        raise RequestError(f"n is {n}; use 1 to 128")
    options = parsed.stream_options
    return ScriptedRequest(
        model=parsed.model,
        dialect=Dialect.CHAT,
        stream=bool(parsed.stream),
        include_usage=options is not None and bool(options.include_usage),
        n=n,
        talk=talk_of(map(_line, parsed.messages)),
        headers=dict(headers),
        input_bytes=len(bytes(sizes.messages)) + len(bytes(sizes.tools)),
        digest=sha256(body).digest(),
        custom_tools=custom,
        thoughtless=next((i for i, m in enumerate(parsed.messages) if _is_thoughtless(m)), None),
    )


def _custom(tools: bytes) -> frozenset[str]:
    if b'"custom"' not in tools:
        return frozenset()
    return frozenset(tool.custom.name for tool in _tools.decode(tools) if tool.custom is not None)


def _is_thoughtless(message: _Message) -> bool:
    return (
        message.role == "assistant"
        and bool(message.tool_calls)
        and bytes(message.reasoning_content) == b"null"
    )


def _line(message: _Message) -> Line:
    calls = {call.id: (call.custom or call.function).name for call in message.tool_calls or ()}
    answers = (message.tool_call_id,) if message.role == "tool" and message.tool_call_id is not None else ()
    return Line(message.role, _text(message), calls, answers)


def _text(message: _Message) -> str:
    match message.content:
        case str(text):
            return text
        case None:
            return ""
        case parts:
            return "\n".join(part.text for part in parts if part.text is not None)
