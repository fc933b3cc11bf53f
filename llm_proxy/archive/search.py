"""Full text over recorded calls: what is looked for, and the hits with the words around them.

The newest days are searched first, and no longer than is asked for: an answer that isn't whole says how far
back it got.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection

from llm_proxy.archive.calls import call_views
from llm_proxy.archive.search_documents import Document, TextKind, facet, texts_of
from llm_proxy.archive.search_index import Behind, behind, open_index
from llm_proxy.archive.search_postgres import is_long
from llm_proxy.archive.search_query import Any_, BadSearch, Query, found_at, matches, parse_query
from llm_proxy.archive.search_sqlite import NoIndex
from llm_proxy.archive.search_store import PER_DAY, Asked, OutOfTime, Row, TextIndex
from llm_proxy.archive.search_words import Place, places, words
from llm_proxy.records.blobs import DAY_US, epoch_of

AROUND = 90
"""Characters that are shown before a hit and behind it."""
MOST_MARKS = 20
_PLACES = {
    "prompt": (TextKind.PROMPT,),
    "reply": (TextKind.REPLY,),
    "reasoning": (TextKind.REASONING,),
    "tool": (TextKind.TOOL_CALL, TextKind.TOOL_RESULT),
    "tool_call": (TextKind.TOOL_CALL,),
    "tool_result": (TextKind.TOOL_RESULT,),
}


class SearchWish(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for. Filters are of the call that a text stands in; a tool call is found by its own
    tool, verdict and rule. Times are Unix µs; `before` goes on behind the hit of that number."""

    text: str
    agent: str | None = None
    run: str | None = None
    user: str | None = None
    model: str | None = None
    tool: str | None = None
    decision: str | None = None
    rule: str | None = None
    within: tuple[str, ...] = ()
    """Of prompt, reply, reasoning, tool (or tool_call, tool_result); empty is all."""
    since_us: int | None = None
    until_us: int | None = None
    before: int | None = None
    limit: int = 20
    seconds: float = 10.0


class Snippet(NamedTuple):
    """Part of a text, and the slices of it that were looked for."""

    text: str
    marks: tuple[tuple[int, int], ...] = ()


class Hit(NamedTuple):
    row: Row
    snippet: Snippet | None
    """None where the text is no longer kept."""


class Hits(NamedTuple):
    """The newest first. `before` is where to go on, None where there is no more."""

    hits: tuple[Hit, ...]
    before: int | None
    back_to_us: int | None
    """Where time ran out: the day from which on everything was looked at; None where all was."""
    behind: Behind


def search(connection: Connection, wish: SearchWish, clock: Callable[[], float] = time.monotonic) -> Hits:
    """Raises `BadSearch`. What isn't indexed yet isn't found: `behind` tells how much that is."""
    asked = asked_of(wish)
    try:
        with open_index(connection) as index:
            left = behind(connection, index.cursors())
            return _search(connection, index, wish, asked, clock() + wish.seconds, clock)._replace(
                behind=left
            )
    except NoIndex:
        return Hits((), None, None, behind(connection, {}))


def asked_of(wish: SearchWish) -> Asked:
    """Raises `BadSearch`."""
    named = ("agent", "run", "user", "model", "tool", "decision", "rule")
    told = [(name, getattr(wish, name)) for name in named]
    facets = [Any_((facet(name, value),)) for name, value in told if value]
    unknown = [place for place in wish.within if place not in _PLACES]
    if unknown:
        raise BadSearch(f"{unknown[0][:40]!r} is no kind of text: name some of {', '.join(_PLACES)}.")
    if wish.within:
        kinds = {kind.value: None for place in wish.within for kind in _PLACES[place]}
        facets.append(Any_(tuple(facet("kind", kind) for kind in kinds)))
    return Asked(parse_query(wish.text), tuple(facets), wish.since_us, wish.until_us, wish.before)


def _search(
    connection: Connection,
    index: TextIndex,
    wish: SearchWish,
    asked: Asked,
    end: float,
    clock: Callable[[], float],
) -> Hits:
    hits: list[Hit] = []
    texts = _Texts(connection)
    for days in index.spans(*_days(index, asked)):
        later = (days[1] + 1) * PER_DAY, (days[1] + 1) * DAY_US
        try:
            for row in _rows(index, asked, days, wish.limit + 1, lambda: end - clock()):
                if len(hits) == wish.limit:
                    return Hits(tuple(hits), hits[-1].row.id, None, Behind())
                if hits and clock() > end:  # reading what was said may take longer than finding it
                    raise OutOfTime
                found, told = _hit(texts, asked.query, row)
                if found:
                    hits.append(told)
        except OutOfTime:
            before = min(hits[-1].row.id, later[0]) if hits else later[0]
            return Hits(tuple(hits), before, later[1], Behind())
    return Hits(tuple(hits), None, None, Behind())


def _rows(
    index: TextIndex, asked: Asked, days: tuple[int, int], limit: int, left: Callable[[], float]
) -> Iterator[Row]:
    """All of these days, as many at a time. Raises `OutOfTime`."""
    while True:
        seconds = left()
        if seconds <= 0:
            raise OutOfTime
        rows = index.find(asked, days, limit, seconds)
        yield from rows
        if len(rows) < limit:
            return
        asked = asked._replace(before=rows[-1].id)


def _days(index: TextIndex, asked: Asked) -> tuple[int, int]:
    there = index.days()
    if there is None:
        return 0, -1
    first, last = there
    if asked.since_us is not None:
        first = max(first, epoch_of(asked.since_us))
    if asked.until_us is not None:
        last = min(last, epoch_of(asked.until_us))
    if asked.before is not None:
        last = min(last, asked.before // PER_DAY)
    return first, last


class _Texts:
    """The texts of calls, the last one kept: hits of one call come one after the other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._call = ""
        self._texts: dict[bytes, Document] = {}

    def of(self, row: Row) -> Document | None:
        if row.call_id != self._call:
            views = call_views(self._connection, [row.call_id])
            self._call, self._texts = row.call_id, texts_of(views[0]) if views else {}
        return self._texts.get(row.key)


def _hit(texts: _Texts, query: Query, row: Row) -> tuple[bool, Hit]:
    """The hit, and whether it is one: of a long text PostgreSQL tells its words alone."""
    told = texts.of(row)
    if told is None:
        return True, Hit(row, None)
    if is_long(there := words(told.text)) and not matches(query, there):
        return False, Hit(row, None)
    return True, Hit(row, snippet(told.text, query))


def snippet(text: str, query: Query) -> Snippet:
    """The words around the first hit; those that are looked for are marked."""
    there = list(places(text))
    marks = sorted(_marks(there, query))
    middle = marks[0][0] if marks else 0
    start, end = max(0, middle - AROUND), min(len(text), middle + 2 * AROUND)
    before, behind_ = ("…" if start else ""), ("…" if end < len(text) else "")
    shift = len(before) - start
    inside = [(at + shift, min(until, end) + shift) for at, until in marks if start <= at < end]
    return Snippet(f"{before}{text[start:end]}{behind_}", tuple(inside[:MOST_MARKS]))


def _marks(there: Sequence[Place], query: Query) -> set[tuple[int, int]]:
    found = [place.word for place in there]
    return {
        (there[at].start, there[at + len(term.words) - 1].end)
        for term in query.wanted
        for at in found_at(term, found, MOST_MARKS)
    }
