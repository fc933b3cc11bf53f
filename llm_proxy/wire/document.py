"""A request body as one JSON object: where each top-level value stands, and the typed fields acted on.

Strict about what parsers read differently: UTF-8 alone, no byte order mark, no key twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from llm_proxy.errors import ProxyError
from llm_proxy.wire.faults import invalid, placed
from llm_proxy.wire.spans import DuplicateKey, Span, array_spans, object_spans, refuse_duplicates

MAX_MESSAGES = 100_000

T = TypeVar("T")

Spans = dict[str, Span]

_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_MISSING = re.compile(r"missing required field `(\w+)`")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_document(body: bytes, decode: Callable[[bytes], T], needs: str = "model") -> tuple[Spans, T]:
    """The spans of the body's top-level values, and the body as `decode` has it.

    `needs` says what a body holds at least, for the error message. Raises `ProxyError` (invalid_request) that
    names the place and the remedy. Values that `decode` leaves raw stay undecoded; nesting is bounded by
    msgspec, which stops at the interpreter's recursion limit.
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
        raise invalid(f"The request body is not a JSON object: send an object with {needs}") from error
    except msgspec.DecodeError as error:
        raise invalid(_malformed(body, error)) from error
    try:
        typed = decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_type(error) from error
    except RecursionError as error:
        raise _too_deep() from error
    return _spans(body, raws, 0 if body.startswith(b"{") else body.index(b"{")), typed


def inner_spans(body: bytes, key: str, at: Span) -> Spans:
    """Where the values of the object that `key` names stand. Raises `ProxyError` for a key twice."""
    return _spans(body, _raws(body[slice(*at)]), at[0], f"{key}.")


def element_spans(
    body: bytes, key: str, start: int, raws: Sequence[msgspec.Raw], what: str = "objects"
) -> tuple[Span, ...]:
    """Where each object of the array at `body[start:]` stands. Raises `ProxyError` for any other element.

    `what` says what to send instead, for the error message.
    """
    if len(raws) > MAX_MESSAGES:
        raise invalid(f"{key} holds {len(raws)}: send at most {MAX_MESSAGES}", key)
    spans = array_spans(body, start, raws)
    for index, (begin, _) in enumerate(spans):
        if body[begin] != ord("{"):
            where = f"{key}[{index}]"
            raise invalid(f"{where} (byte {begin}) is not an object: send {what}", where)
    return spans


def message_spans(body: bytes, at: Span, messages: Sequence[msgspec.Raw]) -> tuple[Span, ...]:
    """Where each of the `messages` stands; there is at least one. Raises `ProxyError`."""
    if not messages:
        raise invalid("messages is empty: send at least one message", "messages")
    return element_spans(body, "messages", at[0], messages, "objects with role and content")


def refuse_ambiguous(raw: bytes, key: str, what: str) -> None:
    """Raises `ProxyError` where an object in an element of `key` names a key twice. Costs a full parse.

    The upstream might then read another element than is read here. `what` names an element, with its article.
    """
    try:
        refuse_duplicates(raw)
    except DuplicateKey as error:
        said = f"Key {error.key!r} occurs twice in one object of {what}: send it once"
        raise invalid(said, key) from error
    except RecursionError as error:
        said = f"{what.capitalize()} is nested too deeply: send a flatter document"
        raise invalid(said, key) from error


def _spans(body: bytes, raws: Mapping[str, msgspec.Raw], start: int, inside: str = "") -> Spans:
    try:
        return object_spans(body, raws, start)
    except DuplicateKey as error:
        key = inside + error.key
        raise invalid(f"Key {key!r} occurs twice in the request body: send it once", key) from error


def _too_deep() -> ProxyError:
    return invalid("The request body is nested too deeply: send a flatter document")


def _malformed(body: bytes, error: msgspec.DecodeError) -> str:
    if body.startswith(b"\xef\xbb\xbf"):
        return "The request body starts with a byte order mark: send JSON without it"
    hint = " (a \\u escape of half a surrogate pair?)" if _SURROGATE.search(body) else ""
    return f"The request body is not valid JSON: {error}{hint}. Send one JSON object"


def _wrong_type(error: msgspec.ValidationError) -> ProxyError:
    expected, path = placed(error)
    if missing := _MISSING.search(expected):
        where = f"{path}.{missing[1]}" if path else missing[1]
        return invalid(f"{where} is missing: add it to the request body", where)
    return invalid(f"{path or 'The request body'} has the wrong type: {expected}", path or None)
