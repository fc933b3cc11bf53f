"""Text as the search index holds it: words, the same on every store, and where they stand in the text.

A word is a run of letters and digits, in lower case and without accents; each Chinese or Japanese character
is a word of its own. What stands between words means nothing: `issues_create` is a phrase of two.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

LONGEST_WORD = 64
"""Characters of a word that count."""
_ASCII = re.compile(r"[a-z0-9]+")
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(f"[{_ALONE}]|[^\\W_{_ALONE}]+")

_VOICED = "\u3099\u309a"
"""Marks of kana, which are no accents."""


class Place(NamedTuple):
    """A word, and the characters of the text that it stands at."""

    word: str
    start: int
    end: int


def words(text: str) -> list[str]:
    """The words of `text`, in order."""
    if text.isascii():
        return [word[:LONGEST_WORD] for word in _ASCII.findall(text.lower())]
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join([char for char in plain if char in _VOICED or not unicodedata.combining(char)])
    plain = unicodedata.normalize("NFC", plain)
    return [word[:LONGEST_WORD] for word in _WORD.findall(plain)]


def places(text: str) -> Iterator[Place]:
    """The words with where they stand; of a sign that stands for several words each has the same place."""
    if text.isascii():
        for found in _ASCII.finditer(text.lower()):
            yield Place(found[0][:LONGEST_WORD], found.start(), found.end())
        return
    for found in _WORDS_AS_WRITTEN.finditer(text):
        for word in words(found[0]):
            yield Place(word, found.start(), found.end())


_MARKS = "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u064b-\u065f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
_WORDS_AS_WRITTEN = re.compile(f"[{_ALONE}]|(?:[^\\W_{_ALONE}]|(?<=[^\\W_])[{_MARKS}])+")
