"""Values as a caller sent them, read whatever they are: one of no known shape is its own JSON text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")

NONE = msgspec.Raw(b"null")

CANNOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not the JSON they should be."""


def lenient(kind: type[T]) -> Callable[[msgspec.Raw | bytes], T | None]:
    """A decoder of one type that answers None to any other."""
    decode = msgspec.json.Decoder(kind).decode

    def attempt(raw: msgspec.Raw | bytes) -> T | None:
        try:
            return decode(raw)
        except CANNOT_READ:
            return None

    return attempt


string = lenient(str)
array = lenient(list[msgspec.Raw])


def text_of(raw: msgspec.Raw) -> str:
    """A string's text; nothing for null; any other value's own JSON text."""
    read = string(raw)
    if read is not None:
        return read
    return "" if bytes(raw) == b"null" else as_text(bytes(raw))


def as_text(raw: bytes) -> str:
    """The bytes themselves as text."""
    return raw.decode("utf-8", "replace")
