"""OpenAI chat completions, the request: parse it once into the fields that are acted on."""

from __future__ import annotations

import re

import msgspec

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_chat.message import message_facts
from llm_proxy.wire.openai_chat.upstream import upstream_body
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import DuplicateKey, Span, array_spans, object_spans

__all__ = ["MAX_MESSAGES", "ChatRequest", "message_facts", "parse", "upstream_body"]

MAX_MESSAGES = 100_000
_MAX_CHOICES = 1_000
_MAX_TOKENS = 2**31 - 1


class ChatRequest(WireRequest, frozen=True, kw_only=True):
    """A chat completion request."""

    legacy_functions: bool = False
    """It declares `functions` (the form before `tools`), so calls come back as `function_call`."""


class _Named(msgspec.Struct, gc=False):
    name: str


class _Tool(msgspec.Struct, gc=False):
    function: _Named | None = None
    custom: _Named | None = None


class _AllowedTools(msgspec.Struct, gc=False):
    mode: str = ""


class _ToolChoice(msgspec.Struct, gc=False):
    type: str = ""
    allowed_tools: _AllowedTools | None = None


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Metadata(msgspec.Struct, gc=False):
    run_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None


class _Body(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream_options: _StreamOptions | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _ToolChoice | None = None
    functions: list[_Named] | None = None
    function_call: str | _Named | None = None
    metadata: _Metadata | None = None
    user: str | None = None


class _UserId(msgspec.Struct, gc=False):
    session_id: str = ""


_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_body = msgspec.json.Decoder(_Body).decode
_user_id = msgspec.json.Decoder(_UserId).decode
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(body: bytes) -> ChatRequest:
    """Read a request body. Raises `ProxyError` (invalid_request) that names the place and the remedy.

    Nesting is bounded by msgspec, which stops at the interpreter's recursion limit. Message contents stay
    undecoded. Unknown fields are not looked at.
    """
    raws, typed = _decode(body)
    spans = _spans(body, raws)
    if typed.stream_options:
        options, _ = spans["stream_options"]
        _inner_spans(body, raws["stream_options"], options)
    message_spans = _message_spans(body, spans["messages"], typed.messages)
    cap_fields, max_output = _cap(typed)
    run, user = _run_and_user(typed)
    tools = spans.get("tools") if typed.tools else spans.get("functions") if typed.functions else None
    return ChatRequest(
        body=body,
        model=typed.model,
        stream=bool(typed.stream),
        n=_bounded("n", typed.n, _MAX_CHOICES) or 1,
        messages=tuple([body[start:end] for start, end in message_spans]),
        message_spans=message_spans,
        spans=spans,
        max_output=max_output,
        cap_fields=cap_fields,
        include_usage=bool(typed.stream_options and typed.stream_options.include_usage),
        tools=body[slice(*tools)] if tools else b"",
        tool_names=_tool_names(typed),
        tool_forced=_forced(typed),
        user=user,
        run=run,
        legacy_functions=bool(typed.functions),
    )


def _decode(body: bytes) -> tuple[dict[str, msgspec.Raw], _Body]:
    """Two passes: one for where every value stands, one for the values that are acted on."""
    try:
        if not body.isascii():
            body.decode()
        raws = _raws(body)
    except UnicodeDecodeError as error:
        raise _invalid(f"The request body is not UTF-8 (byte {error.start}): send UTF-8 JSON") from error
    except RecursionError as error:
        raise _invalid("The request body is nested too deeply: send a flatter document") from error
    except msgspec.ValidationError as error:
        raise _invalid(
            "The request body is not a JSON object: send an object with model and messages"
        ) from error
    except msgspec.DecodeError as error:
        raise _invalid(_malformed(body, error)) from error
    try:
        return raws, _body(body)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error)) from error
    except RecursionError as error:
        raise _invalid("The request body is nested too deeply: send a flatter document") from error


def _spans(body: bytes, raws: dict[str, msgspec.Raw]) -> dict[str, Span]:
    try:
        return object_spans(body, raws, _first_byte(body))
    except DuplicateKey as error:
        raise _invalid(
            f"Key {error.key!r} occurs twice in the request body: send it once", error.key
        ) from error


def _first_byte(body: bytes) -> int:
    return 0 if body.startswith(b"{") else body.index(b"{")


def _inner_spans(body: bytes, raw: msgspec.Raw, start: int) -> dict[str, Span]:
    try:
        return object_spans(body, _raws(raw), start)
    except DuplicateKey as error:
        key = f"stream_options.{error.key}"
        raise _invalid(f"Key {key!r} occurs twice in the request body: send it once", key) from error


def _message_spans(body: bytes, at: Span, messages: list[msgspec.Raw]) -> tuple[Span, ...]:
    if not messages:
        raise _invalid("messages is empty: send at least one message", "messages")
    if len(messages) > MAX_MESSAGES:
        raise _invalid(f"messages holds {len(messages)}: send at most {MAX_MESSAGES}", "messages")
    spans = array_spans(body, at[0], messages)
    for index, (start, _) in enumerate(spans):
        if body[start] != ord("{"):
            where = f"messages[{index}]"
            raise _invalid(
                f"{where} (byte {start}) is not an object: send objects with role and content", where
            )
    return spans


def _cap(typed: _Body) -> tuple[tuple[str, ...], int | None]:
    """The keys that hold a completion cap, and the lower of their values."""
    held = {
        name: value
        for name, value in (
            (
                "max_completion_tokens",
                _bounded("max_completion_tokens", typed.max_completion_tokens, _MAX_TOKENS),
            ),
            ("max_tokens", _bounded("max_tokens", typed.max_tokens, _MAX_TOKENS)),
        )
        if value is not None
    }
    return tuple(held), min(held.values(), default=None)


def _bounded(name: str, value: int | None, most: int) -> int | None:
    if value is None or 1 <= value <= most:
        return value
    raise _invalid(f"{name} is {value}: send a number from 1 to {most}, or leave it out", name)


def _tool_names(typed: _Body) -> tuple[str, ...]:
    named = [tool.function or tool.custom for tool in typed.tools or ()] + list(typed.functions or ())
    return tuple([tool.name for tool in named if tool])


def _forced(typed: _Body) -> bool:
    choice = typed.tool_choice
    if isinstance(choice, _ToolChoice):
        if choice.allowed_tools:
            return choice.allowed_tools.mode == "required"
        return choice.type not in ("auto", "none")
    return choice == "required" or isinstance(typed.function_call, _Named)


def _run_and_user(typed: _Body) -> tuple[str, str]:
    """The run and user that the body names. A user id that is JSON with a session id names only a run."""
    metadata = typed.metadata
    user = typed.user or ""
    if metadata is None:
        return "", user
    run = metadata.run_id or metadata.session_id or ""
    session = _session_of(metadata.user_id or "")
    return run or session, user or ("" if session else metadata.user_id or "")


def _session_of(user_id: str) -> str:
    if not user_id.startswith("{"):
        return ""
    try:
        return _user_id(user_id).session_id
    except msgspec.DecodeError:
        return ""


def _malformed(body: bytes, error: msgspec.DecodeError) -> str:
    if body.startswith(b"\xef\xbb\xbf"):
        return "The request body starts with a byte order mark: send JSON without it"
    hint = " (a \\u escape of half a surrogate pair?)" if _SURROGATE.search(body) else ""
    return f"The request body is not valid JSON: {error}{hint}. Send one JSON object"


def _wrong_type(text: str) -> ProxyError:
    """msgspec says what was expected and, behind a dash, where."""
    if missing := _MISSING.search(text):
        path = _PATH.search(text)
        where = f"{path[1]}.{missing[1]}" if path else missing[1]
        return _invalid(f"{where} is missing: add it to the request body", where)
    path = _PATH.search(text)
    where = path[1] if path else None
    return _invalid(f"{where or 'The request body'} has the wrong type: {_PATH.sub('', text)}", where)


def _invalid(message: str, param: str | None = None) -> ProxyError:
    return ProxyError(Kind.INVALID_REQUEST, message, param=param, retryable=False)
