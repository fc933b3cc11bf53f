"""Anthropic Messages, the request: parse it once into the fields that are acted on."""

from __future__ import annotations

import re

import msgspec

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import DuplicateKey, Span, array_spans, object_spans

MAX_MESSAGES = 100_000
_MAX_TOKENS = 2**31 - 1


class _Tool(msgspec.Struct, gc=False):
    """A tool of the caller's, or one of Anthropic's by its `type`; a toolset has no name of its own."""

    name: str | None = None
    type: str | None = None


class _ToolChoice(msgspec.Struct, gc=False):
    type: str = ""


class _Metadata(msgspec.Struct, gc=False):
    user_id: str | None = None
    run_id: str | None = None
    session_id: str | None = None


class _Body(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw]
    max_tokens: int | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    metadata: _Metadata | None = None


class _UserId(msgspec.Struct, gc=False):
    session_id: str = ""


_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_body = msgspec.json.Decoder(_Body).decode
_user_id = msgspec.json.Decoder(_UserId).decode
_SESSION = re.compile(r"user_.*_session_([0-9a-fA-F-]{36})")
"""A user id as Claude Code's first versions wrote it: `user_<hash>_account_<uuid>_session_<uuid>`."""
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(body: bytes) -> WireRequest:
    """Read a request. Raises `ProxyError` (invalid_request) that names the place and the remedy.

    Nesting is bounded by msgspec, which stops at the interpreter's recursion limit. Message contents stay
    undecoded. Unknown fields are not looked at. `max_tokens` is required; 0 only fills the prompt cache.
    """
    request = parse_count(body)
    if request.max_output is None:
        raise _invalid("max_tokens is missing: add it to the request body", "max_tokens")
    return request


def parse_count(body: bytes) -> WireRequest:
    """Read a request to count tokens, which is a request for a message that needs no `max_tokens`."""
    raws, typed = _decode(body)
    spans = _spans(body, raws)
    message_spans = _message_spans(body, spans["messages"], typed.messages)
    run, user = _run_and_user(typed.metadata)
    tools = spans.get("tools") if typed.tools else None
    return WireRequest(
        body=body,
        model=typed.model,
        stream=bool(typed.stream),
        messages=tuple([body[start:end] for start, end in message_spans]),
        message_spans=message_spans,
        spans=spans,
        max_output=_bounded(typed.max_tokens),
        cap_fields=() if typed.max_tokens is None else ("max_tokens",),
        include_usage=True,
        tools=body[slice(*tools)] if tools else b"",
        tool_names=tuple([name for tool in typed.tools or () if (name := tool.name or tool.type)]),
        tool_forced=bool(typed.tool_choice and typed.tool_choice.type not in ("", "auto", "none")),
        user=user,
        run=run,
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
            "The request body is not a JSON object: send an object with model, max_tokens and messages"
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
        return object_spans(body, raws, 0 if body.startswith(b"{") else body.index(b"{"))
    except DuplicateKey as error:
        raise _invalid(
            f"Key {error.key!r} occurs twice in the request body: send it once", error.key
        ) from error


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


def _bounded(tokens: int | None) -> int | None:
    if tokens is None or 0 <= tokens <= _MAX_TOKENS:
        return tokens
    raise _invalid(f"max_tokens is {tokens}: send a number from 0 to {_MAX_TOKENS}", "max_tokens")


def _run_and_user(metadata: _Metadata | None) -> tuple[str, str]:
    """The run and user that the body names. A user id with a session in it names only a run."""
    if metadata is None:
        return "", ""
    user = metadata.user_id or ""
    session = _session_of(user)
    return metadata.run_id or metadata.session_id or session, "" if session else user


def _session_of(user_id: str) -> str:
    if written := _SESSION.fullmatch(user_id):
        return written[1]
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
