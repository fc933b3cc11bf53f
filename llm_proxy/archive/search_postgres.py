"""The search index in PostgreSQL: a row for each text with its words as a `tsvector`, and no text."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError

from llm_proxy.archive import search_waiting as waiting
from llm_proxy.archive.search_documents import Document, facet
from llm_proxy.archive.search_query import tsquery
from llm_proxy.archive.search_store import PER_DAY, Asked, Move, OutOfTime, Overtaken, Row
from llm_proxy.records.runstate import RunKey

LAST_PLACE = 16_383
MOST_PLACES = 255
"""A `tsvector` keeps no place beyond these: of a text with more, phrases are told by the text itself."""
LONG = facet("long", "text")
SHORT, FEW = 20_000, 500
_CANCELED = "57014"
_LOCK = 0x6C6C6D7365617263
_ROW = "id, key, call_id, agent_id, run_id, at_us, kind, tool"
_INSERT = (
    f"INSERT INTO state_texts ({_ROW}, told) "  # noqa: S608 (constants)
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
)

_WAITING = (
    f"SELECT {_ROW}, told FROM state_texts WHERE told IS NOT NULL "  # noqa: S608 (constants)
    "AND id >= %s AND id < %s AND at_us >= %s AND at_us < %s ORDER BY id DESC"
)
_OLDEST = "SELECT id, told FROM state_texts WHERE told IS NOT NULL ORDER BY id LIMIT %s"
_INDEX = "UPDATE state_texts SET words = %s::tsvector, told = NULL WHERE id = %s"
_TOO_MUCH = ("22", "54")
"""Classes of PostgreSQL's errors: data that it doesn't take, and limits of its own."""


class PostgresIndex:
    """Over a connection, which reads, or has a transaction open that writes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._packer = waiting.Packer()

    def cursors(self) -> Mapping[str, int]:
        found = self._connection.execute(text("SELECT writer, searched_seq FROM state_writers"))
        return {row.writer: row.searched_seq for row in found}

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        sql = "SELECT key FROM state_texts WHERE key = ANY(%s)"
        return {bytes(key) for (key,) in self._connection.exec_driver_sql(sql, (list(keys),))}

    def add(self, documents: Sequence[Document], move: Move) -> None:
        """The caller commits."""
        self.add_texts(documents)
        self.move(move)

    def add_texts(self, documents: Sequence[Document]) -> None:
        """Those that aren't there. One process at a time numbers them, whatever became of its lease."""
        self._connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        rows: list[tuple[object, ...]] = []
        for epoch in sorted({document.epoch for document in documents}):
            mine = {one.key: one for one in documents if one.epoch == epoch}
            there = self.known(list(mine))
            number = self._last(epoch)
            for key, one in mine.items():
                if key in there:
                    continue
                number += 1
                about = (one.call_id, one.agent_id, one.run_id, one.at_us, one.kind.value, one.tool)
                rows.append((epoch * PER_DAY + number, key, *about, self._packer.pack(one)))
        if rows:
            self._connection.exec_driver_sql(_INSERT, rows)
            self._settle()

    def _settle(self) -> None:
        """Moves the oldest that wait into the index of words, once there are too many."""
        run = self._connection.exec_driver_sql
        while waiting.over(
            *run("SELECT count(*), sum(length(told)) FROM state_texts WHERE told IS NOT NULL").one()
        ):
            oldest = run(_OLDEST, (waiting.AT_ONCE,)).fetchall()
            told = [(id_, self._packer.told(bytes(packed))) for id_, packed in oldest]
            try:
                with self._connection.begin_nested():
                    run(_INDEX, [(vector(*each), id_) for id_, each in told])
            except DBAPIError as error:
                if not _too_much(error):
                    raise
                self._settle_singly(told)

    def _settle_singly(self, told: Sequence[tuple[int, waiting.Told]]) -> None:
        """Of what PostgreSQL won't take, the facets alone can be found: it must not hold up the others."""
        for id_, each in told:
            try:
                with self._connection.begin_nested():
                    self._connection.exec_driver_sql(_INDEX, (vector(*each), id_))
            except DBAPIError as error:
                if not _too_much(error):
                    raise
                self._connection.exec_driver_sql(_INDEX, (vector((), each.facets), id_))

    def move(self, move: Move) -> None:
        """Raises `Overtaken`."""
        sql = "UPDATE state_writers SET searched_seq = %s WHERE writer = %s AND searched_seq = %s"
        if self._connection.exec_driver_sql(sql, (move.seq, move.writer, move.after)).rowcount != 1:
            raise Overtaken

    def spans(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Ever longer ones: where a word is common, the first few days have enough of it."""
        length = 1
        while last >= first:
            start = max(first, last - length + 1)
            yield start, last
            last, length = start - 1, length * 4

    def find(self, asked: Asked, days: tuple[int, int], limit: int, seconds: float) -> list[Row]:
        low, high = days[0] * PER_DAY, (days[1] + 1) * PER_DAY
        if asked.before is not None:
            high = min(high, asked.before)
        most = str(int(seconds * 1000) + 1)
        self._connection.exec_driver_sql("SELECT set_config('statement_timeout', %s, true)", (most,))
        query = tsquery(asked.query, asked.facets, LONG)
        times = (asked.since_us or 0, asked.until_us if asked.until_us is not None else 1 << 62)
        end, bound = time.monotonic() + seconds, (low, high, *times)
        try:
            rows = self._connection.exec_driver_sql(_WAITING, bound)
            there = list(waiting.found(asked, rows, limit, end))
            found = None if self._is_short(days) else self._all_of(query, bound)
            if found is None:
                indexed = self._newest(query, bound, limit)
            else:
                indexed = self._rows(sorted(found, reverse=True)[:limit])
            self._connection.exec_driver_sql("SET LOCAL statement_timeout TO DEFAULT")
            return waiting.newest(indexed, there, limit)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", "") != _CANCELED:
                raise
            self._connection.rollback()
            raise OutOfTime from None

    def _is_short(self, days: tuple[int, int]) -> bool:
        """Whether there is so little that looking at all of it takes no time."""
        return days[0] == days[1] and self._last(days[0]) <= SHORT

    def _all_of(self, query: str, bound: tuple[int, int, int, int]) -> list[int] | None:
        """The ids of all that there is, by the index of words; None where that is more than `FEW`.

        The planner can't know how rare a word is, and would look through all texts for one that isn't there:
        `id + 0` leaves it no way but the words'.
        """
        self._connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        sql = (
            "SELECT id FROM state_texts WHERE words @@ %s::tsquery AND id + 0 >= %s AND id + 0 < %s "
            "AND at_us + 0 >= %s AND at_us + 0 < %s LIMIT %s"
        )
        found = self._connection.exec_driver_sql(sql, (query, *bound, FEW + 1)).fetchall()
        self._connection.exec_driver_sql("SET LOCAL enable_seqscan = on")
        return None if len(found) > FEW else [row[0] for row in found]

    def _newest(self, query: str, bound: tuple[int, int, int, int], limit: int) -> list[Row]:
        """Back from the newest: where it's not rare, the first few are soon found."""
        self._connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        sql = (
            f"SELECT {_ROW} FROM state_texts WHERE words @@ %s::tsquery "  # noqa: S608 (constants)
            "AND id >= %s AND id < %s AND at_us >= %s AND at_us < %s ORDER BY id DESC LIMIT %s"
        )
        found = self._connection.exec_driver_sql(sql, (query, *bound, limit)).fetchall()
        self._connection.exec_driver_sql("SET LOCAL enable_bitmapscan = on")
        return [_row(row) for row in found]

    def _rows(self, ids: list[int]) -> list[Row]:
        sql = f"SELECT {_ROW} FROM state_texts WHERE id = ANY(%s) ORDER BY id DESC"  # noqa: S608 (constants)
        return [_row(row) for row in self._connection.exec_driver_sql(sql, (ids,))]

    def days(self) -> tuple[int, int] | None:
        row = self._connection.execute(text("SELECT min(id), max(id) FROM state_texts")).one()
        return None if row[0] is None else (row[0] // PER_DAY, row[1] // PER_DAY)

    def forget(self, before_epoch: int, kept_runs: Collection[RunKey]) -> int:
        """The texts of earlier days, but for those of some runs. The caller commits."""
        sql = "DELETE FROM state_texts WHERE id < %s"
        bound: list[object] = [before_epoch * PER_DAY]
        if kept_runs:
            sql += " AND (agent_id, run_id) NOT IN (SELECT * FROM unnest(%s::text[], %s::text[]))"
            bound += [[run.agent_id for run in kept_runs], [run.run_id for run in kept_runs]]
        return self._connection.exec_driver_sql(sql, tuple(bound)).rowcount

    def _last(self, epoch: int) -> int:
        sql = "SELECT max(id) FROM state_texts WHERE id >= %s AND id < %s"
        last = self._connection.exec_driver_sql(sql, (epoch * PER_DAY, (epoch + 1) * PER_DAY)).scalar()
        return 0 if last is None else last - epoch * PER_DAY


def _too_much(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", "")[:2] in _TOO_MUCH


def _row(row: Any) -> Row:
    return Row(row[0], bytes(row[1]), *row[2:])


def vector(told: Sequence[str], facets: Sequence[str]) -> str:
    """The text of a `tsvector`: every word with its places. Words hold nothing that would need quoting."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(told, 1):
        places[word].append(place)
    parts = [f"'{word}':{','.join(map(str, _kept(found)))}" for word, found in places.items()]
    parts += [f"'{facet_}'" for facet_ in (*facets, *((LONG,) if is_long(told) else ()))]
    return " ".join(parts)


def _kept(found: list[int]) -> list[int]:
    return [min(place, LAST_PLACE) for place in found[:MOST_PLACES]]


def is_long(told: Sequence[str]) -> bool:
    """Whether places in a text of these words are left out of its `tsvector`."""
    return len(told) > LAST_PLACE or (len(told) > MOST_PLACES and max(Counter(told).values()) > MOST_PLACES)
