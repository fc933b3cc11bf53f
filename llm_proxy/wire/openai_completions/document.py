"""A request body as one JSON object: where each top-level value stands, and the typed fields acted on.

Strict about what parsers read differently: UTF-8 alone, no byte order mark, no key twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.spans import DuplicateKey, Span, object_spans

T = TypeVar("T")

Spans = dict[str, Span]

_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Metadata(msgspec.Struct, gc=False):
    """The caller's own words on a request, as far as they name its run or user."""

    run_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None


class _UserId(msgspec.Struct, gc=False):
    session_id: str = ""


_user_id = msgspec.json.Decoder(_UserId).decode


def read_document(body: bytes, decode: Callable[[bytes], T]) -> tuple[Spans, T]:
    """The spans of the body's top-level values, and the body as `decode` has it.

    Raises `ProxyError` (invalid_request) that names the place and the remedy. Values that `decode` leaves raw
    stay undecoded; nesting is bounded by msgspec, which stops at the interpreter's recursion limit.
    """
    try:
        if not body.isascii():
            body.decode()
        raws = _raws(body)
    except UnicodeDecodeError as error:
        raise invalid(f"The request body is not UTF-8 (byte {error.start}): send UTF-8 JSON") from error
    except RecursionError as error:
        raise _too_deep() from error
    except msgspec.ValidationError as error:
        raise invalid("The request body is not a JSON object: send an object with model") from error
    except msgspec.DecodeError as error:
        raise invalid(_malformed(body, error)) from error
    try:
        typed = decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error)) from error
    except RecursionError as error:
        raise _too_deep() from error
    return _spans(body, raws, 0 if body.startswith(b"{") else body.index(b"{")), typed


def inner_spans(body: bytes, key: str, at: Span) -> Spans:
    """Where the values of the object that `key` names stand. Raises `ProxyError` for a key twice."""
    return _spans(body, _raws(body[slice(*at)]), at[0], f"{key}.")


def bounded(name: str, value: int | None, most: int, least: int = 1) -> int | None:
    """`value` where it is null or within bounds; raises `ProxyError` where not."""
    if value is None or least <= value <= most:
        return value
    raise invalid(f"{name} is {value}: send a number from {least} to {most}, or leave it out", name)


def run_and_user(metadata: Metadata | None, user: str | None) -> tuple[str, str]:
    """The run and user that a body names. A user id that is JSON with a session id names only a run."""
    if metadata is None:
        return "", user or ""
    session = _session_of(metadata.user_id or "")
    run = metadata.run_id or metadata.session_id or session
    return run, user or ("" if session else metadata.user_id or "")


def invalid(message: str, param: str | None = None) -> ProxyError:
    return ProxyError(Kind.INVALID_REQUEST, message, param=param, retryable=False)


def _spans(body: bytes, raws: dict[str, msgspec.Raw], start: int, inside: str = "") -> Spans:
    try:
        return object_spans(body, raws, start)
    except DuplicateKey as error:
        key = inside + error.key
        raise invalid(f"Key {key!r} occurs twice in the request body: send it once", key) from error


def _session_of(user_id: str) -> str:
    if not user_id.startswith("{"):
        return ""
    try:
        return _user_id(user_id).session_id
    except (msgspec.DecodeError, RecursionError):
        return ""


def _too_deep() -> ProxyError:
    return invalid("The request body is nested too deeply: send a flatter document")


def _malformed(body: bytes, error: msgspec.DecodeError) -> str:
    if body.startswith(b"\xef\xbb\xbf"):
        return "The request body starts with a byte order mark: send JSON without it"
    hint = " (a \\u escape of half a surrogate pair?)" if _SURROGATE.search(body) else ""
    return f"The request body is not valid JSON: {error}{hint}. Send one JSON object"


def _wrong_type(text: str) -> ProxyError:
    """msgspec says what was expected and, behind a dash, where."""
    path = _PATH.search(text)
    if missing := _MISSING.search(text):
        where = f"{path[1]}.{missing[1]}" if path else missing[1]
        return invalid(f"{where} is missing: add it to the request body", where)
    where = path[1] if path else None
    return invalid(f"{where or 'The request body'} has the wrong type: {_PATH.sub('', text)}", where)
