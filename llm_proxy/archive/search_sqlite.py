"""The search index beside a SQLite store: a file of its own, `STORE-search`, that can be built anew.

Its own file, so that indexing never holds the write lock that calls wait for. The words of a day are an FTS5
table without its texts, which stand in the store already: a day is forgotten by dropping its table.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from llm_proxy.archive import search_waiting as waiting
from llm_proxy.archive.search_documents import Document
from llm_proxy.archive.search_query import fts5
from llm_proxy.archive.search_store import PER_DAY, Asked, Move, OutOfTime, Overtaken, Row

VERSION = 2
BUSY_S = 5.0
_AT_ONCE = 500
_STEPS = 10_000
"""Of SQLite's machine, between two looks at the clock."""
_TABLES = """
CREATE TABLE IF NOT EXISTS texts (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, call_id TEXT NOT NULL, agent_id TEXT NOT NULL,
    run_id TEXT NOT NULL, at_us INTEGER NOT NULL, kind TEXT NOT NULL, tool TEXT NOT NULL,
    told BLOB
);
CREATE UNIQUE INDEX IF NOT EXISTS texts_key ON texts (key);
CREATE INDEX IF NOT EXISTS texts_waiting ON texts (id) WHERE told IS NOT NULL;
CREATE TABLE IF NOT EXISTS cursors (writer TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS about (store TEXT NOT NULL);
"""
_ROW = "t.id, t.key, t.call_id, t.agent_id, t.run_id, t.at_us, t.kind, t.tool"
_WAITING = (
    f"SELECT {_ROW}, t.told FROM texts t INDEXED BY texts_waiting "  # noqa: S608 (constants)
    "WHERE t.told IS NOT NULL AND t.id >= ? AND t.id < ? AND t.at_us >= ? AND t.at_us < ? ORDER BY t.id DESC"
)


class NoIndex(Exception):
    """There is no index yet, or this SQLite can't search. The message says so."""


def index_file(store: Path) -> Path:
    return store.with_name(f"{store.name}-search")


class SqliteIndex:
    """Used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._packer = waiting.Packer()

    @classmethod
    def open(cls, store: Path, identity: str) -> SqliteIndex:
        """Makes the file where it isn't there. One of another store, or another version, is emptied first.

        `identity` is what tells the store from others.
        """
        file = index_file(store)
        if not file.exists():
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, store.stat().st_mode & 0o777))
        connection = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA page_size=8192")  # of a new file: packed texts are 1 to 3 KB
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA temp_store=MEMORY")
            connection.execute("PRAGMA secure_delete=ON")  # what was forgotten must not stand in free pages
            index = cls(connection)
            index._prepare(identity)
        except BaseException:
            connection.close()
            raise
        return index

    @classmethod
    def read(cls, store: Path, identity: str) -> SqliteIndex:
        """Raises `NoIndex` where none was made yet."""
        file = index_file(store)
        if not file.exists():
            raise NoIndex("Nothing is indexed yet")
        connection = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        index = cls(connection)
        try:
            connection.execute("PRAGMA query_only=ON")
            connection.execute("BEGIN")
            if not index._is_of(identity):
                raise NoIndex("Nothing is indexed yet")
        except BaseException:
            connection.close()
            raise
        return index

    def close(self) -> None:
        self._connection.close()

    def cursors(self) -> Mapping[str, int]:
        return dict(self._connection.execute("SELECT writer, seq FROM cursors").fetchall())

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            sql = f"SELECT key FROM texts WHERE key IN ({marks})"  # noqa: S608 (marks only)
            found.update(key for (key,) in self._connection.execute(sql, some))
        return found

    def add(self, documents: Sequence[Document], move: Move) -> None:
        told = [(document, self._packer.pack(document)) for document in documents]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            if self.cursors().get(move.writer, 0) != move.after:
                raise Overtaken
            for epoch in sorted({document.epoch for document in documents}):
                self._add_of_day(epoch, [(one, packed) for one, packed in told if one.epoch == epoch])
            self._settle()
            sql = "INSERT INTO cursors VALUES (?, ?) ON CONFLICT (writer) DO UPDATE SET seq = excluded.seq"
            self._connection.execute(sql, (move.writer, move.seq))
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.rollback()
            raise

    def spans(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        return iter([(day, day) for day in self._days_of() if first <= day <= last])

    def find(self, asked: Asked, days: tuple[int, int], limit: int, seconds: float) -> list[Row]:
        day = days[0]
        start = day * PER_DAY
        most = PER_DAY if asked.before is None else max(0, min(PER_DAY, asked.before - start))
        since, until = asked.since_us or 0, asked.until_us if asked.until_us is not None else 1 << 62
        end = time.monotonic() + seconds
        rows = self._connection.execute(_WAITING, (start, start + most, since, until))
        there = list(waiting.found(asked, rows, limit, end))
        if day not in self._words_of():
            return there
        table = f"words_{day:d}"
        sql = (
            f"SELECT {_ROW} FROM {table} w CROSS JOIN texts t ON t.id = w.rowid + ? "  # noqa: S608 (a number)
            f"WHERE {table} MATCH ? AND w.rowid < ? AND t.at_us >= ? AND t.at_us < ? "
            "ORDER BY w.rowid DESC LIMIT ?"
        )
        bound = (start, fts5(asked.query, asked.facets), most, since, until, limit)
        self._connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        try:
            indexed = [Row(*row) for row in self._connection.execute(sql, bound)]
            return waiting.newest(indexed, there, limit)
        except sqlite3.OperationalError as error:
            if "interrupted" not in str(error):
                raise
            raise OutOfTime from None
        finally:
            self._connection.set_progress_handler(None, 0)

    def days(self) -> tuple[int, int] | None:
        days = self._days_of()
        return (days[-1], days[0]) if days else None

    def forget(self, day: int, kept: Sequence[Document]) -> int:
        """All of a day but `kept`, which are told anew; how many texts that is."""
        bounds = (day * PER_DAY, (day + 1) * PER_DAY)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            gone = self._connection.execute("DELETE FROM texts WHERE id >= ? AND id < ?", bounds).rowcount
            self._connection.execute(f"DROP TABLE IF EXISTS words_{day:d}")
            if kept:
                self._add_of_day(day, [(one, self._packer.pack(one)) for one in kept])
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.rollback()
            raise
        return gone - len(kept)

    def calls_of(self, day: int) -> list[tuple[str, str, str]]:
        """(call, agent, run) of the day's texts."""
        sql = "SELECT DISTINCT call_id, agent_id, run_id FROM texts WHERE id >= ? AND id < ?"
        return self._connection.execute(sql, (day * PER_DAY, (day + 1) * PER_DAY)).fetchall()

    def _add_of_day(self, day: int, told: Sequence[tuple[Document, bytes]]) -> None:
        run = self._connection.execute
        start = day * PER_DAY
        last = run("SELECT max(id) FROM texts WHERE id >= ? AND id < ?", (start, start + PER_DAY)).fetchone()
        number = 0 if last[0] is None else last[0] - start
        for one, packed in told:
            row = (start + number + 1, one.key, one.call_id, one.agent_id, one.run_id, one.at_us)
            added = run(
                "INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (*row, one.kind.value, one.tool, packed),
            )
            number += added.rowcount == 1

    def _settle(self) -> None:
        """Moves the oldest that wait into the tables of their days, once there are too many."""
        run = self._connection.execute
        sql = "SELECT count(*), sum(length(told)) FROM texts INDEXED BY texts_waiting WHERE told IS NOT NULL"
        while waiting.over(*run(sql).fetchone()):
            oldest = run(
                "SELECT id, told FROM texts INDEXED BY texts_waiting WHERE told IS NOT NULL "
                "ORDER BY id LIMIT ?",
                (waiting.AT_ONCE,),
            ).fetchall()
            for day in sorted({id_ // PER_DAY for id_, _ in oldest}):
                run(
                    f"CREATE VIRTUAL TABLE IF NOT EXISTS words_{day:d} "
                    "USING fts5(words, content='', columnsize=0, tokenize='ascii')"
                )
            for id_, packed in oldest:
                day, number = divmod(id_, PER_DAY)
                text = self._packer.line(packed).decode()
                run(f"INSERT INTO words_{day:d} (rowid, words) VALUES (?, ?)", (number, text))  # noqa: S608
                run("UPDATE texts SET told = NULL WHERE id = ?", (id_,))

    def _days_of(self) -> list[int]:
        """The days of which there are texts, the newest first."""
        sql = "SELECT DISTINCT id / ? FROM texts INDEXED BY texts_waiting WHERE told IS NOT NULL"
        wait = {day for (day,) in self._connection.execute(sql, (PER_DAY,))}
        return sorted({*self._words_of(), *wait}, reverse=True)

    def _words_of(self) -> list[int]:
        """The days of which there are words, the newest first."""
        sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'words_*'"
        names = [name.removeprefix("words_") for (name,) in self._connection.execute(sql)]
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def _is_of(self, identity: str) -> bool:
        if self._connection.execute("PRAGMA user_version").fetchone() != (VERSION,):
            return False
        return self._connection.execute("SELECT store FROM about").fetchall() == [(identity,)]

    def _prepare(self, identity: str) -> None:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            if not self._is_of(identity):
                for (name,) in run(
                    "SELECT name FROM sqlite_master WHERE type = 'table' "
                    "AND (sql LIKE 'CREATE VIRTUAL%' OR name IN ('texts', 'cursors', 'about'))"
                ).fetchall():
                    run(f'DROP TABLE "{name}"')
                for statement in _TABLES.split(";\n"):
                    run(statement)
                run("INSERT INTO about VALUES (?)", (identity,))
                run(f"PRAGMA user_version = {VERSION}")
            run("COMMIT")
        except BaseException:
            self._connection.rollback()
            raise
