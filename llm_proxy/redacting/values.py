"""Values by their words, however they are spelt: what is kept of one, and where it stands in a text.

Letters and digits count alone, folded one by one (NFKD, case, accents dropped); whatever stands between them
doesn't, so that `85,000`, `85 000` and `**85000**` are one value. A value stands where words end on both of
its sides. Signs of scripts that put no space between words are words of their own.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, TypeVar

T = TypeVar("T")

GAP = 24
"""Characters that are no letter or digit between two words of one value; more of them part it."""
LONGEST = 256
"""Letters and digits of a value, and of one word, that are kept as one; what is longer is kept in pieces."""
LEAST_PIECE = 8
LEAST = 3
"""Letters and digits that a value has at least, one less where not all are ASCII; others say too little."""


class Kept(NamedTuple):
    """What is kept of a value: a keyed hash of its letters and digits, and how many words and characters."""

    hash: bytes
    words: int
    length: int


class Word(NamedTuple):
    """A word in a text: where it stands, and its letters and digits, folded."""

    start: int
    end: int
    folded: str


class _Fold(dict[str, str]):
    """What is left of each character; computed once."""

    def __missing__(self, char: str) -> str:
        once = unicodedata.normalize("NFKD", char).casefold()
        kept = "".join([c for c in unicodedata.normalize("NFKD", once) if c.isalnum()])
        if len(self) < _MOST_FOLDED:
            self[char] = kept
        return kept


_MOST_FOLDED = 70_000
_fold = _Fold()
_ASCII_WORD = re.compile(rf"[A-Za-z0-9]{{1,{LONGEST}}}")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def words_of(text: str) -> list[Word]:
    """The words of a text, in order."""
    if text.isascii():
        return [Word(*m.span(), m[0].lower()) for m in _ASCII_WORD.finditer(text)]
    return list(_words(text))


def _words(text: str) -> Iterator[Word]:
    start, folded = -1, ""
    for at, char in enumerate(text):
        kept = _fold[char]
        if not kept:
            if start >= 0:
                yield Word(start, at, folded)
            start, folded = -1, ""
        elif _UNSPACED.match(char):
            if start >= 0:
                yield Word(start, at, folded)
            yield Word(at, at + 1, kept)
            start, folded = -1, ""
        else:
            if len(folded) + len(kept) > LONGEST:
                yield Word(start, at, folded)
                start, folded = -1, ""
            start, folded = (at if start < 0 else start), folded + kept
    if start >= 0:
        yield Word(start, len(text), folded)


def hashed(folded: str, key: bytes) -> bytes:
    return hashlib.blake2b(
        folded.encode("utf-8", "surrogatepass"), key=key, digest_size=16, person=b"classified"
    ).digest()


def kept(value: str, key: bytes) -> list[Kept]:
    """What is kept of one value: nothing where it is too short, several pieces where it is long."""
    words = words_of(value)
    whole = "".join([word.folded for word in words])
    if len(whole) < (LEAST if whole.isascii() else LEAST - 1):
        return []
    pieces: list[list[str]] = [[]]
    size = 0
    for word in words:
        size += len(word.folded)
        if size > LONGEST:
            pieces.append([])
            size = len(word.folded)
        pieces[-1].append(word.folded)
    joined = [("".join(piece), len(piece)) for piece in pieces]
    return [
        Kept(hashed(folded, key), count, len(folded))
        for folded, count in joined
        if len(joined) == 1 or len(folded) >= LEAST_PIECE
    ]


def number_spellings(literal: str) -> list[str]:
    """Other ways in which people write a JSON number: without a fraction of zeros, and with cents."""
    try:
        number = float(literal)
    except ValueError:
        return []
    if not abs(number) < 1e15:
        return []
    spelt = {f"{number:.2f}", str(int(number)) if number == int(number) else f"{number:.1f}"}
    return sorted(spelt - {literal})


def standing(
    words: list[Word], values: Mapping[bytes, T], lengths: Collection[int], key: bytes
) -> list[tuple[int, int, T]]:
    """Where any of `values`, by their hashes, stand among the words of a text. `lengths`: those they have."""
    longest = max(lengths, default=0)
    found: list[tuple[int, int, T]] = []
    for last in range(len(words)):
        folded = ""
        for first in range(last, -1, -1):
            if first < last and words[first + 1].start - words[first].end > GAP:
                break
            folded = words[first].folded + folded
            if len(folded) > longest:
                break
            if len(folded) in lengths and (value := values.get(hashed(folded, key))) is not None:
                found.append((words[first].start, words[last].end, value))
    return found
