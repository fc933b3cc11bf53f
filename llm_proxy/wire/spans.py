"""Exact positions of JSON values inside the bytes they were decoded from, and edits at those positions.

`msgspec.Raw` gives a value's bytes but not where they stand. Walking key by key and jumping over each value
by its known length finds the place without parsing anything twice. Why edits are made this way:
docs/design/wire.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import msgspec

Span = tuple[int, int]
"""Start and end offsets of a value's bytes, end excluded."""

Edit = tuple[int, int, bytes]
"""Replace `body[start:end]`. Where start and end are equal, insert there."""

_KEY = re.compile(rb'[ \t\n\r]*"((?:[^"\\]|\\.)*+)"[ \t\n\r]*:[ \t\n\r]*')
_OPEN = re.compile(rb"[ \t\n\r]*[\[{][ \t\n\r]*")
_NEXT = re.compile(rb"[ \t\n\r]*,[ \t\n\r]*")
_CLOSE = re.compile(rb"[ \t\n\r]*}")

_key_text = msgspec.json.Decoder(str).decode


class DuplicateKey(ValueError):
    """An object names a key twice, so that two parsers may read two different documents."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Key {key!r} occurs twice in one object")
        self.key = key


def object_spans(body: bytes, raws: Mapping[str, msgspec.Raw], start: int = 0) -> dict[str, Span]:
    """Where each value of the object at `body[start:]` stands, in the object's order.

    `raws` is that object, decoded from these same bytes as `dict[str, msgspec.Raw]`. Keys are compared as
    text: an escaped twin is the same key. Raises `DuplicateKey`.
    """
    spans: dict[str, Span] = {}
    position = start
    separator = _OPEN
    key = ""
    for _ in raws:
        name = _KEY.match(body, _after(separator, body, position, key))
        if name is None:
            raise DuplicateKey(key)
        text = name[1]
        key = text.decode() if b"\\" not in text else _key_text(b'"%b"' % text)
        value = raws.get(key)
        if key in spans or value is None:
            raise DuplicateKey(key)
        begin = name.end()
        position = _jump(body, begin, value, key)
        spans[key] = (begin, position)
        separator = _NEXT
    _expect_end(body, position, spans, key)
    return spans


def array_spans(body: bytes, start: int, raws: Sequence[msgspec.Raw]) -> tuple[Span, ...]:
    """Where each element of the array at `body[start:]` stands; `raws` is it as `list[msgspec.Raw]`."""
    spans: list[Span] = []
    position = start
    separator = _OPEN.match
    startswith = body.startswith
    for raw in raws:
        value = bytes(raw)
        if startswith(b", {", position):  # what most JSON writers put there, tried first: ten times as fast
            begin = position + 2
        else:
            found = separator(body, position)
            begin = found.end() if found else -1
        if begin < 0 or not startswith(value, begin):
            raise ValueError(f"The array at byte {start} is not the one that was decoded")
        position = begin + len(value)
        spans.append((begin, position))
        separator = _NEXT.match
    return tuple(spans)


def splice(body: bytes, edits: Sequence[Edit]) -> bytes:
    """`body` with the edits made; the same object where there are none. Edits must not overlap."""
    if not edits:
        return body
    pieces: list[bytes] = []
    position = 0
    for start, end, replacement in sorted(edits, key=lambda edit: edit[:2]):
        if start < position:
            raise ValueError(f"Edits overlap at byte {start}")
        pieces += (body[position:start], replacement)
        position = end
    pieces.append(body[position:])
    return b"".join(pieces)


def refuse_duplicates(document: bytes) -> None:
    """Raise `DuplicateKey` where any object of a JSON document, however deep, names a key twice.

    Costs a full parse. Raises ValueError where it is not JSON, RecursionError where it is nested too deep.
    """
    _walk(document.decode())


def _unique(pairs: list[tuple[str, object]]) -> None:
    if len(pairs) > 1:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKey(key)
            seen.add(key)


_walk = json.JSONDecoder(object_pairs_hook=_unique, parse_int=float).decode
"""Integers become floats, since Python refuses to read an int of more than 4,300 digits."""


def _after(separator: re.Pattern[bytes], body: bytes, position: int, key: str) -> int:
    match = separator.match(body, position)
    if match is None:
        raise DuplicateKey(key)
    return match.end()


def _jump(body: bytes, begin: int, raw: msgspec.Raw, key: str) -> int:
    value = bytes(raw)
    if not body.startswith(value, begin):
        raise DuplicateKey(key)
    return begin + len(value)


def _expect_end(body: bytes, position: int, spans: Mapping[str, Span], key: str) -> None:
    """Whatever but a brace stands after the last value that `raws` knows of belongs to a key seen before."""
    if not spans or _CLOSE.match(body, position):
        return
    comma = _NEXT.match(body, position)
    again = _KEY.match(body, comma.end()) if comma else None
    raise DuplicateKey(_key_text(b'"%b"' % again[1]) if again else key)
