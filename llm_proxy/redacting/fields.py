"""Where a field's values stand in a JSON text: read token by token, without building the document.

Arrays count as their elements. A text may hold several documents, one after another. A key that stands twice
is found twice, whichever of the two a reader would keep.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

Span = tuple[int, int]
Path = tuple[str, ...]

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\]:,]|[^\s"{}\[\]:,]++', re.DOTALL)
_MOST_DEPTH = 512
"""Levels of arrays on the path that are followed; what lies deeper counts as one value."""

_text = msgspec.json.Decoder(str).decode


def values_at(text: str, path: Path) -> list[Span]:
    """The spans of every value that `path` names, quotes and brackets included."""
    if path[-1] not in text and "\\u" not in text:
        return []
    return list(_walk(text, path))


def string_of(literal: str) -> str:
    """What a JSON string says; the text between its quotes where it is not valid."""
    if "\\" not in literal:
        return literal[1:-1]
    try:
        return _text(literal.encode("utf-8", "surrogatepass"))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return literal[1:-1]


class _Level:
    """An open object or array: how much of the path led to it (-1 off the path), and its current key."""

    __slots__ = ("key", "matched", "object")

    def __init__(self, matched: int, *, object_: bool) -> None:
        self.matched = matched
        self.object = object_
        self.key: str | None = None


def _walk(text: str, path: Path) -> Iterator[Span]:
    walk = _Walk(text, path)
    for token in TOKEN.finditer(text):
        if (found := walk.step(token)) is not None:
            yield found
    if walk.taking:
        yield walk.start, len(text)


class _Walk:
    """Where in a document the tokens stand, one after the other."""

    __slots__ = ("_last", "_path", "_stack", "_taken", "_text", "start")

    def __init__(self, text: str, path: Path) -> None:
        self._text = text
        self._path = path
        self._stack: list[_Level] = []
        self._last: re.Match[str] | None = None
        self._taken = -1
        """The depth of the object that is taken as a whole."""
        self.start = 0

    @property
    def taking(self) -> bool:
        return self._taken >= 0

    def step(self, token: re.Match[str]) -> Span | None:
        """The value that ends with this token, where it is one that is looked for."""
        first, last = self._text[token.start()], self._last
        self._last = token
        top = self._stack[-1] if self._stack else None
        match first:
            case ":":
                if top is not None and top.object and last is not None and last[0].startswith('"'):
                    top.key = string_of(last[0])
            case ",":
                if top is not None:
                    top.key = None
            case "{" | "[":
                self._open(token, top)
            case "}" | "]":
                return self._close(token)
            case _:
                return self._scalar(token, top)
        return None

    def _scalar(self, token: re.Match[str], top: _Level | None) -> Span | None:
        if self.taking or _matched(top, self._path) != len(self._path) or token[0] == "null":
            return None
        return None if _is_key(self._text, token, top) else token.span()

    def _open(self, token: re.Match[str], top: _Level | None) -> None:
        matched = -1 if self.taking else _matched(top, self._path)
        if matched == len(self._path) and (token[0] == "{" or len(self._stack) >= _MOST_DEPTH):
            self._taken, self.start, matched = len(self._stack), token.start(), -1
        self._stack.append(_Level(matched, object_=token[0] == "{"))

    def _close(self, token: re.Match[str]) -> Span | None:
        if self._stack:
            self._stack.pop()
        if self.taking and len(self._stack) <= self._taken:
            self._taken = -1
            return self.start, token.end()
        return None


def _matched(top: _Level | None, path: Path) -> int:
    """How much of the path a value here has behind it; -1 where it is off the path."""
    if top is None:
        return 0
    if not top.object or top.matched < 0:
        return top.matched
    if top.key is not None and top.matched < len(path) and top.key == path[top.matched]:
        return top.matched + 1
    return -1


_COLON = re.compile(r"\s*+:")


def _is_key(text: str, token: re.Match[str], top: _Level | None) -> bool:
    if top is None or not top.object or not token[0].startswith('"'):
        return False
    return _COLON.match(text, token.end()) is not None
