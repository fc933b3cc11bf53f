"""What the parsers of requests share: decoding with errors that name the place, spans, caps, run and user."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.spans import DuplicateKey, Span, array_spans, object_spans

MAX_MESSAGES = 100_000
MAX_TOKENS = 2**31 - 1

T = TypeVar("T")


class Metadata(msgspec.Struct, gc=False):
    """The keys of a request's `metadata` that are acted on."""

    run_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None


class _Session(msgspec.Struct, gc=False):
    session_id: str = ""


_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_session = msgspec.json.Decoder(_Session).decode
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def decoded(body: bytes, decode: Callable[[bytes], T], needs: str) -> tuple[dict[str, msgspec.Raw], T]:
    """Two passes: one for where every value stands, one for the values that are acted on.

    `needs` says what a body holds at least, for the error message. Raises `ProxyError` (invalid_request).
    """
    try:
        if not body.isascii():
            body.decode()
        raws = _raws(body)
    except UnicodeDecodeError as error:
        raise invalid(f"The request body is not UTF-8 (byte {error.start}): send UTF-8 JSON") from error
    except RecursionError as error:
        raise invalid("The request body is nested too deeply: send a flatter document") from error
    except msgspec.ValidationError as error:
        raise invalid(f"The request body is not a JSON object: send an object with {needs}") from error
    except msgspec.DecodeError as error:
        raise invalid(_malformed(body, error)) from error
    try:
        return raws, decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error)) from error
    except RecursionError as error:
        raise invalid("The request body is nested too deeply: send a flatter document") from error


def body_spans(body: bytes, raws: Mapping[str, msgspec.Raw]) -> dict[str, Span]:
    """Where each top-level value stands. Raises `ProxyError` where a key occurs twice."""
    try:
        return object_spans(body, raws, 0 if body.startswith(b"{") else body.index(b"{"))
    except DuplicateKey as error:
        raise invalid(
            f"Key {error.key!r} occurs twice in the request body: send it once", error.key
        ) from error


def element_spans(body: bytes, key: str, start: int, raws: Sequence[msgspec.Raw]) -> tuple[Span, ...]:
    """Where each object of the array at `body[start:]` stands. Raises `ProxyError` for any other element."""
    if len(raws) > MAX_MESSAGES:
        raise invalid(f"{key} holds {len(raws)}: send at most {MAX_MESSAGES}", key)
    spans = array_spans(body, start, raws)
    for index, (begin, _) in enumerate(spans):
        if body[begin] != ord("{"):
            where = f"{key}[{index}]"
            raise invalid(f"{where} (byte {begin}) is not an object: send objects", where)
    return spans


def bounded(name: str, value: int | None, most: int) -> int | None:
    """The number itself, from 1 to `most`. Raises `ProxyError` for any other."""
    if value is None or 1 <= value <= most:
        return value
    raise invalid(f"{name} is {value}: send a number from 1 to {most}, or leave it out", name)


def run_and_user(metadata: Metadata | None, user: str) -> tuple[str, str]:
    """The run and user that the body names. A user id that is JSON with a session id names only a run."""
    if metadata is None:
        return "", user
    run = metadata.run_id or metadata.session_id or ""
    session = session_of(metadata.user_id or "")
    return run or session, user or ("" if session else metadata.user_id or "")


def session_of(text: str) -> str:
    """The `session_id` of a JSON object in a string; empty for any other text."""
    if not text.startswith("{"):
        return ""
    try:
        return _session(text).session_id
    except (msgspec.DecodeError, RecursionError):
        return ""


def invalid(message: str, param: str | None = None) -> ProxyError:
    return ProxyError(Kind.INVALID_REQUEST, message, param=param, retryable=False)


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
