"""The strings of a JSON text, each with where it stands: by its keys, and by what its objects are numbered.

The text need not be whole: a string that it breaks off in is one all the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from llm_proxy.redacting.fields import string_of

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[{}\[\]:,]|[^\s"{}\[\]:,]++', re.DOTALL)
_LEFT_OUT = "logprobs"
"""The words once more, cut into tokens and spelt in bytes."""


class Said(NamedTuple):
    """One string, `start` to `end` with its quotes.

    What goes on with it in a stream has the same `keys`; `numbers` tell texts apart that come by turns.
    """

    start: int
    end: int
    text: str
    keys: tuple[str, ...]
    numbers: tuple[str, ...]
    is_key: bool
    is_number: bool
    """A JSON number: what stands in its place has to be quoted."""

    def literal(self, text: str, source: str) -> str:
        """`text` as JSON, in the place of this one in `source`."""
        written = json.dumps(text, ensure_ascii=not text.isprintable())
        whole = self.is_number or (self.end - self.start > 1 and source[self.end - 1] == '"')
        return written if whole else written[:-1]


class _Level:
    __slots__ = ("key", "numbers", "object")

    def __init__(self, *, object_: bool) -> None:
        self.object = object_
        self.key = ""
        self.numbers: list[str] = []


class Walk:
    """The strings of one text in order, and where log probabilities stand: a masked text has to lose them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.left_out: list[tuple[int, int]] = []
        self._levels: list[_Level] = []
        self._last: tuple[int, int] | None = None
        self._leaving = -1
        self._left_at = 0

    def strings(self) -> list[Said]:
        found = list(self._found())
        if self._leaving >= 0:
            self.left_out.append((self._left_at, len(self._text)))
        return [
            said._replace(numbers=tuple([n for level in levels for n in level.numbers]))
            for said, levels in found
        ]

    def _found(self) -> Iterator[tuple[Said, tuple[_Level, ...]]]:
        text, levels = self._text, self._levels
        for token in _TOKEN.finditer(text):
            start, end = token.span()
            first = text[start]
            if first in "{[":
                self._open(first, start)
            elif first in "}]":
                self._close(end)
            elif first == ":":
                if levels and self._last is not None:
                    levels[-1].key = _said(text, *self._last)
            elif first == ",":
                if levels:
                    levels[-1].key = ""
            elif self._leaving < 0:
                yield from self._scalar(start, end, quoted=first == '"')
            self._last = (start, end) if first == '"' else None

    def _scalar(self, start: int, end: int, *, quoted: bool) -> Iterator[tuple[Said, tuple[_Level, ...]]]:
        text, levels = self._text, self._levels
        key = levels[-1].key if levels else ""
        if key.endswith(("index", "item_id")):
            levels[-1].numbers.append(text[start:end])
        keys = tuple([level.key for level in levels if level.object])
        if quoted:
            is_key = bool(levels) and levels[-1].object and not key and _COLON.match(text, end) is not None
            said = Said(start, end, _said(text, start, end), keys, (), is_key, is_number=False)
            yield said, tuple(levels)
        elif end - start >= _CARD and _LONG_NUMBER.fullmatch(text, start, end):
            yield Said(start, end, text[start:end], keys, (), is_key=False, is_number=True), tuple(levels)

    def _open(self, first: str, start: int) -> None:
        levels = self._levels
        if self._leaving < 0 and levels and levels[-1].key == _LEFT_OUT:
            self._leaving, self._left_at = len(levels), start
        levels.append(_Level(object_=first == "{"))

    def _close(self, end: int) -> None:
        if self._levels:
            self._levels.pop()
        if self._leaving >= 0 and len(self._levels) <= self._leaving:
            self._leaving = -1
            self.left_out.append((self._left_at, end))


_COLON = re.compile(r"\s*+:")
_CARD = 13
_LONG_NUMBER = re.compile(r"-?[0-9]{13,}+(?:\.[0-9]++)?(?:[eE][+\-]?[0-9]++)?")
"""A number with as many digits as a card's."""


def _said(text: str, start: int, end: int) -> str:
    literal = text[start:end]
    if end - start > 1 and literal.endswith('"'):
        return string_of(literal)
    return string_of(literal + '"')
