"""What a store's search index can do, whichever database holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from llm_proxy.archive.search_documents import Document
from llm_proxy.archive.search_query import Any_, Query

PER_DAY = 1 << 32
"""A text's id is its day times this, and its number on that day from 1 on: ids grow with time."""


class Row(NamedTuple):
    """A text that was found."""

    id: int
    key: bytes
    call_id: str
    agent_id: str
    run_id: str
    at_us: int
    kind: str
    tool: str


class Move(NamedTuple):
    """All of `writer` from `after` up to `seq` is indexed now."""

    writer: str
    after: int
    seq: int


class Overtaken(Exception):
    """Another process moved the cursor meanwhile."""


class OutOfTime(Exception):
    """It takes longer than was allowed."""


class Asked(NamedTuple):
    """What is looked for. Times are those at which calls began, Unix µs; `before` is an id."""

    query: Query
    facets: tuple[Any_, ...] = ()
    since_us: int | None = None
    until_us: int | None = None
    before: int | None = None


class TextIndex(Protocol):
    """One open index. Methods raise what the database raises."""

    def cursors(self) -> Mapping[str, int]:
        """How far each writer's records were indexed; a writer without any isn't there."""
        ...

    def known(self, keys: Sequence[bytes]) -> set[bytes]: ...

    def add(self, documents: Sequence[Document], move: Move) -> None:
        """Adds them, and moves the cursor: both or none. Raises `Overtaken`."""
        ...

    def spans(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The days of `first` to `last` in spans to be searched one after the other, the newest first."""
        ...

    def find(self, asked: Asked, days: tuple[int, int], limit: int, seconds: float) -> list[Row]:
        """The newest first: at most `limit` of the texts of these days, both included. Raises `OutOfTime`."""
        ...

    def days(self) -> tuple[int, int] | None:
        """The first and the last day of which there are texts."""
        ...
