"""Texts that wait to be indexed by their words: packed, a sixth of what an index of them takes, and looked
through one by one.

An index of words pays off over many texts, that share their words. Of few it takes several times what they
say, above all of keys, hashes and other words that come once. So the newest wait, up to what can be looked
through in a moment, and the oldest of them go into the store's own index once there are more.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import zstandard

from llm_proxy.archive.search_documents import FACET, Document
from llm_proxy.archive.search_query import Term
from llm_proxy.archive.search_store import Asked, OutOfTime, Row
from llm_proxy.archive.search_words import words
from llm_proxy.records.dictionary import WORDS_1

MOST, MOST_BYTES = 4_000, 8 << 20
"""Texts that wait, and the bytes that they take packed."""
AT_ONCE = 500
"""That go into the index together."""
LOOKED_AT = 100
"""Between two looks at the clock."""


class Told(NamedTuple):
    """The words of a text in order, and its facets."""

    words: list[str]
    facets: list[str]


class Packer:
    """Packs and unpacks. Used by one thread at a time."""

    def __init__(self) -> None:
        self._pack = zstandard.ZstdCompressor(level=6, dict_data=WORDS_1)
        self._unpack = zstandard.ZstdDecompressor(dict_data=WORDS_1)

    def pack(self, document: Document) -> bytes:
        told = " ".join([*words(document.text), *document.facets])
        return self._pack.compress(told.encode("utf-8", "replace"))

    def line(self, packed: bytes) -> bytes:
        """All words, then the facets, a blank before and behind each."""
        return b" " + self._unpack.decompress(packed) + b" "

    def told(self, packed: bytes) -> Told:
        all_ = self.line(packed).decode().split()
        return Told([w for w in all_ if w[0] != FACET], [w for w in all_ if w[0] == FACET])


def over(count: int, size: int | None) -> bool:
    """Whether so many texts of so many bytes are too many to wait."""
    return count > MOST or (size or 0) > MOST_BYTES


def found(asked: Asked, waiting: Iterable[Sequence[Any]], limit: int, end: float) -> Iterator[Row]:
    """Those of `waiting` that are looked for, at most `limit`. Their last column is the packed text.

    Raises `OutOfTime` at `end` of the monotonic clock.
    """
    packer, number = Packer(), 0
    terms = [(_sought(term), term.negated) for term in asked.query.terms]
    facets = [[f" {facet} ".encode() for facet in any_.facets] for any_ in asked.facets]
    for looked, (*row, packed) in enumerate(waiting):
        if looked % LOOKED_AT == 0 and time.monotonic() > end:
            raise OutOfTime
        line = packer.line(bytes(packed))
        if all((term in line) is not negated for term, negated in terms) and all(
            any(facet in line for facet in any_) for any_ in facets
        ):
            id_, key, *others = row
            yield Row(id_, bytes(key), *others)
            number += 1
            if number == limit:
                return


def newest(indexed: Iterable[Row], waiting: Iterable[Row], limit: int) -> list[Row]:
    """Each once: one that is moved between the two looks is in both."""
    rows = {row.id: row for row in (*waiting, *indexed)}
    return [rows[id_] for id_ in sorted(rows, reverse=True)[:limit]]


def _sought(term: Term) -> bytes:
    return f" {' '.join(term.words)}{'' if term.prefix else ' '}".encode("utf-8", "replace")
