"""What became of every field of an imported config: each leaf has one row, and exactly one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec

from llm_proxy.importing.source import Field, leaves
from llm_proxy.yamlpos import Document, KeyPath, dotted


class Verdict(StrEnum):
    """`exact`: what it did there, it does here. `approximate`: nearly; the note says what differs."""

    EXACT = "exact"
    APPROXIMATE = "approximate"
    UNSUPPORTED = "unsupported"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One field. `became` is the key in proxy.yaml, empty where there is none. No row holds a secret."""

    file: str
    line: int | None
    """None where the file's lines are not known, or the row stands for something that was not there."""
    field: str
    verdict: Verdict
    became: str = ""
    note: str = ""


class Counts(msgspec.Struct, frozen=True):
    exact: int
    approximate: int
    unsupported: int


class Notes:
    """Collects what is said of the fields of one file. The first word on a leaf counts."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._said: dict[KeyPath, Row] = {}

    def exact(self, field: Field, became: str = "", note: str = "") -> None:
        """Said of every leaf of `field`, as in the two below."""
        self._say(field, Verdict.EXACT, became, note)

    def approximate(self, field: Field, became: str, note: str) -> None:
        self._say(field, Verdict.APPROXIMATE, became, note)

    def unsupported(self, field: Field, note: str) -> None:
        self._say(field, Verdict.UNSUPPORTED, "", note)

    def nothing(self, leaf: Field, note: str) -> None:
        """Of a leaf that holds nothing."""
        self._said[leaf.path] = self._row(leaf.path, Verdict.EXACT, "", note)

    def _say(self, field: Field, verdict: Verdict, became: str, note: str) -> None:
        for leaf in field.leaves() if field.value is not None else ():
            if leaf.path not in self._said:
                self._said[leaf.path] = self._row(leaf.path, verdict, became, note)

    def _row(self, path: KeyPath, verdict: Verdict, became: str, note: str) -> Row:
        known = path in self._document.spots
        return Row(
            file=self._document.file,
            line=self._document.position(path).line if known else None,
            field=dotted(path),
            verdict=verdict,
            became=became,
            note=note,
        )

    def unsaid(self) -> Iterator[Field]:
        """The leaves that nothing was said of yet."""
        whole = Field(self._document.data)
        return (leaf for leaf in whole.leaves() if leaf.path not in self._said)

    def rows(self) -> tuple[Row, ...]:
        """One per leaf, in the file's order. Every leaf must have been spoken of."""
        return tuple(self._said[path] for path, _ in leaves(self._document.data))


def count(rows: Iterable[Row]) -> Counts:
    found = Counter(row.verdict for row in rows)
    return Counts(*(found[verdict] for verdict in Verdict))
