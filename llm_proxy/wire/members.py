"""JSON objects and arrays taken apart one level deep, their values kept as bytes, and put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

Members = dict[str, bytes]
"""An object's keys in order, each with its value's own bytes. Of a repeated key the last value counts."""

NULL = b"null"

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def members(raw: bytes) -> Members:
    """An object's members; none for null. Raises msgspec.DecodeError for any other value.

    A key that isn't UTF-8 is read with replacement characters, as clients read it; blanks around the object
    that JSON doesn't know (a form feed) are left out, as the readers of streams leave them out.
    """
    if raw == NULL:
        return {}
    try:
        found = _object(raw)
    except (UnicodeDecodeError, msgspec.DecodeError):
        found = _object(raw.strip().decode("utf-8", "replace"))
    return {key: bytes(value) for key, value in found.items()}


def items(raw: bytes) -> list[bytes]:
    """An array's elements; none for null. Raises msgspec.DecodeError for any other value."""
    return [] if raw == NULL else [bytes(item) for item in _array(raw)]


def given(of: Mapping[str, bytes], key: str) -> bool:
    """Whether the key is there with a value other than null."""
    return of.get(key, NULL) != NULL


def to_object(of: Mapping[str, bytes]) -> bytes:
    return b"{" + b",".join([_encode(key) + b":" + value for key, value in of.items()]) + b"}"


def to_array(of: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(of) + b"]"
