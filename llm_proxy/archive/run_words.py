"""Runs by what was said in them, and by the rules that spoke: found by the search index, a day at a time.

All calls of a day are looked up before any run is told that began on it, or in the hour after it. So what is
listed is whole, and in order, however common a word is; and nothing is looked up for longer than it takes to
fill a page.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice

import msgspec
from sqlalchemy import Connection, select, tuple_

from llm_proxy.archive.listings import RunRow, list_runs
from llm_proxy.archive.run_filter import ASK, RunFilter, conditions
from llm_proxy.archive.search import SearchWish, asked_of
from llm_proxy.archive.search_index import open_index
from llm_proxy.archive.search_query import Query
from llm_proxy.archive.search_sqlite import NoIndex
from llm_proxy.archive.search_store import Asked, OutOfTime, TextIndex
from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.tables import runs

SECONDS = 10.0
_AT_ONCE = 10_000
_NAMED = 400
"""Runs that one statement names, at most."""
_LATEST = 1 << 62
_SLACK_US = 3_600_000_000
"""A run begins with that of its calls which is let through first. One that came before may be a day older."""

_Key = tuple[str, str]


class TooLong(Exception):
    """Time ran out before the page was full."""


def find_runs(connection: Connection, wanted: RunFilter, limit: int) -> list[RunRow]:
    """Runs that match, the last begun first. Raises `BadSearch`, and `TooLong`."""
    questions = _questions(wanted)
    if not questions:
        return list_runs(connection, limit=limit, wanted=conditions(wanted))
    found: list[RunRow] = []
    try:
        with open_index(connection) as index:
            end = time.monotonic() + SECONDS
            for keys, since, until in _by_days(index, questions, wanted, end):
                begun = _begun(connection, wanted, keys, (since, until), end)
                with closing(begun):
                    chosen = list(islice(begun, limit - len(found)))
                found += _rows(connection, chosen)
                if len(found) >= limit:
                    break
    except NoIndex:
        return []
    except OutOfTime:
        raise TooLong from None
    return found


def _questions(wanted: RunFilter) -> list[Asked]:
    """What is asked of the index: words in one text, and what the policy said, maybe of another."""
    ask = ASK if wanted.decision == ASK else None
    found: list[Asked] = []
    whose = SearchWish(text="x", agent=wanted.agent, run=wanted.run, user=wanted.user)
    if wanted.words is not None:
        found.append(asked_of(msgspec.structs.replace(whose, text=wanted.words)))
    if wanted.rule is not None or ask is not None:
        told = asked_of(msgspec.structs.replace(whose, rule=wanted.rule, decision=ask))
        found.append(told._replace(query=Query(())))
    since_us = None if wanted.since_us is None else wanted.since_us - _SLACK_US
    return [asked._replace(since_us=since_us) for asked in found]


def _by_days(
    index: TextIndex, questions: Sequence[Asked], wanted: RunFilter, end: float
) -> Iterator[tuple[set[_Key], int, int]]:
    """Runs that answer every question by a call since a time (Unix µs), that time, and the one before it.

    Raises `OutOfTime`.
    """
    there = index.days()
    if there is None:
        return
    known: list[set[_Key]] = [set() for _ in questions]
    until = _LATEST
    latest = min(wanted.until_us or until, wanted.before[0] + 1 if wanted.before else until)
    for first, last in index.spans(*there):
        for keys, asked in zip(known, questions, strict=True):
            keys |= set(_of_span(index, asked, (first, last), end))
        since = first * DAY_US + _SLACK_US
        if since < latest:
            yield _in_all(known), since, until
        if wanted.since_us is not None and since <= wanted.since_us:
            return
        until = since
    yield _in_all(known), 0, until  # runs that are older than all that is indexed


def _in_all(known: Sequence[set[_Key]]) -> set[_Key]:
    first, *others = known
    return first.intersection(*others)


def _of_span(index: TextIndex, asked: Asked, span: tuple[int, int], end: float) -> Iterator[_Key]:
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise OutOfTime
        rows = index.find(asked, span, _AT_ONCE, left)
        yield from [(row.agent_id, row.run_id) for row in rows]
        if len(rows) < _AT_ONCE:
            return
        asked = asked._replace(before=rows[-1].id)


def _begun(
    connection: Connection, wanted: RunFilter, keys: set[_Key], time_us: tuple[int, int], end: float
) -> Generator[_Key]:
    """Those of the runs that match and began within that time, the last first. Raises `OutOfTime`."""
    if not keys:
        return
    c, (since_us, until_us) = runs.c, time_us
    query = select(c.agent_id, c.run_id).where(*conditions(wanted))
    query = query.where(c.started_us >= since_us, c.started_us < until_us)
    if len(keys) <= _NAMED:
        query = query.where(tuple_(c.agent_id, c.run_id).in_(sorted(keys)))
    query = query.order_by(c.started_us.desc(), c.run_id)
    with connection.execute(query, execution_options={"yield_per": _AT_ONCE}) as rows:
        for row in rows:
            if time.monotonic() > end:
                raise OutOfTime
            if (key := (row.agent_id, row.run_id)) in keys:
                yield key


def _rows(connection: Connection, keys: Sequence[_Key]) -> list[RunRow]:
    """In the order in which they're listed."""
    found: list[RunRow] = []
    for start in range(0, len(keys), _NAMED):
        some = keys[start : start + _NAMED]
        wanted = [tuple_(runs.c.agent_id, runs.c.run_id).in_(some)]
        found += list_runs(connection, limit=len(some), wanted=wanted)
    return found
