"""Reads the evidence as it's stored, without trusting it: values of any type, in bounded memory.

All reads are those of one transaction, which sees the store at one moment while the proxy goes on writing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, text

from llm_proxy.audit.findings import Places, RecordRow
from llm_proxy.records.prepared import select_in
from llm_proxy.records.started import Place

_COLUMNS = "writer, seq, kind, at_us, call_id, run_id, agent_id, body, hash"
_AT_ONCE = 100
"""Rows of `records` that are in memory together; those of content go by their bytes."""
_PAGE = 500
_BYTES = 8 << 20


@contextmanager
def one_moment(engine: Engine) -> Generator[Connection]:
    """A connection of a running proxy whose reads all see one moment, and which can't write."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection, connection.begin():
            yield connection
        return
    with engine.connect() as plain:
        told = plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with told.begin():
            yield told


class Source:
    """The tables, read by a connection of the caller's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sqlite = connection.dialect.name == "sqlite"
        if self._sqlite:
            raw = connection.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.text_factory = _text_or_bytes

    def heads(self) -> dict[str, Place]:
        """Each writer's, by `state_writers`."""
        rows = self._rows("SELECT writer, head_seq, head_hash FROM state_writers ORDER BY started_us, writer")
        return {id_: Place(id_, _whole(seq), _hex(hash_)) for id_, seq, hash_ in rows}

    def writers(self, known: Iterable[str]) -> list[str]:
        """All that have records or a head: those `known`, then the others."""
        found = dict.fromkeys(known)
        last = self._connection.execute(text("SELECT min(writer) FROM records")).scalar()
        query = text("SELECT min(writer) FROM records WHERE writer > :last")
        while last is not None:
            found[last] = None
            last = self._connection.execute(query, {"last": last}).scalar()
        return list(found)

    def count(self) -> int:
        return int(self._connection.execute(text("SELECT sum(head_seq) FROM state_writers")).scalar() or 0)

    def records(self, writer: str, after: int) -> Iterator[RecordRow]:
        """A writer's rows behind `after`, in order."""
        query = f"SELECT {_COLUMNS} FROM records WHERE writer = :writer AND seq > :after ORDER BY seq"  # noqa: S608
        for row in self._stream(query, {"writer": writer, "after": after}):
            yield RecordRow(*row)

    def checkpoint_rows(self, writer: str) -> Iterator[RecordRow]:
        """A writer's checkpoints, in order, by `state_checkpoints`."""
        names = ", ".join(f"r.{name}" for name in _COLUMNS.split(", "))
        query = (
            f"SELECT {names} FROM state_checkpoints c "  # noqa: S608 (constants)
            "JOIN records r ON r.writer = c.writer AND r.seq = c.seq WHERE c.writer = :writer ORDER BY c.seq"
        )
        for row in self._stream(query, {"writer": writer}):
            yield RecordRow(*row)

    def before(self, writer: str) -> list[RecordRow]:
        """A writer's rows whose numbers no record has: at most a few."""
        query = f"SELECT {_COLUMNS} FROM records WHERE writer = :writer AND seq < 1 ORDER BY seq LIMIT 20"  # noqa: S608
        return [RecordRow(*row) for row in self._rows(query, {"writer": writer})]

    def places(self, wanted: Sequence[tuple[str, int]]) -> Places:
        """Kind and hash of those records that are there."""
        if not wanted:
            return {}
        join = (
            "SELECT r.writer, r.seq, r.kind, r.hash FROM {} JOIN records r ON r.writer = q.w AND r.seq = q.s"
        )
        if self._sqlite:
            marks = ",".join(["(?,?)"] * len(wanted))
            sql = f"WITH q(w, s) AS (VALUES {marks}) {join.format('q')}"
            parameters: Any = tuple(value for pair in wanted for value in pair)
        else:
            sql = join.format("unnest(%s::text[], %s::bigint[]) AS q(w, s)")
            parameters = ([writer for writer, _ in wanted], [seq for _, seq in wanted])
        rows = self._connection.exec_driver_sql(sql, parameters).fetchall()
        return {(writer, seq): (str(kind), _bytes(hash_)) for writer, seq, kind, hash_ in rows}

    def checkpoints(self, writer: str) -> set[int]:
        """The numbers of a writer's checkpoints, by `state_checkpoints`."""
        query = "SELECT seq FROM state_checkpoints WHERE writer = :writer"
        return {seq for (seq,) in self._rows(query, {"writer": writer})}

    def strays(self) -> list[str]:
        """Writers that `state_checkpoints` names, and that have no head."""
        query = (
            "SELECT DISTINCT writer FROM state_checkpoints "
            "WHERE writer NOT IN (SELECT writer FROM state_writers)"
        )
        return [writer for (writer,) in self._rows(query)]

    def covered(self) -> dict[str, int]:
        """How far each writer is signed, by `state_covered`."""
        return {writer: _whole(seq) for writer, seq in self._rows("SELECT writer, seq FROM state_covered")}

    def salts(self) -> dict[int, bytes]:
        return {row[0]: row[1] for row in self._rows("SELECT epoch, salt FROM state_salts")}

    def purged(self) -> set[int]:
        return {epoch for (epoch,) in self._rows("SELECT epoch FROM state_purged")}

    def blobs(self, wanted: Sequence[bytes] | None = None) -> Iterator[tuple[Any, ...]]:
        """Rows of `blobs` in order of their ids: all of them, or those `wanted`, which are in order."""
        for ids in self._sized(wanted):
            rows = select_in(self._connection, "id, epoch, codec, size, data", "blobs", "id", ids)
            yield from sorted(rows, key=lambda row: bytes(row[0]))

    def damage(self) -> list[tuple[str, str]]:
        """What SQLite itself finds wrong in the evidence: table, and what it says. Empty on PostgreSQL."""
        if not self._sqlite:
            return []
        return [
            (table, str(line))
            for table in ("records", "blobs")
            for (line,) in self._connection.exec_driver_sql(f"PRAGMA integrity_check({table})").fetchall()
            if line != "ok"
        ]

    def _sized(self, wanted: Sequence[bytes] | None) -> Iterator[list[bytes]]:
        """Ids, in order, of content that is small enough to be in memory together."""
        pages = self._pages() if wanted is None else self._wanted(wanted)
        for page in pages:
            ids, size = list[bytes](), 0
            for id_, length in page:
                if ids and size + (length or 0) > _BYTES:
                    yield ids
                    ids, size = [], 0
                ids.append(bytes(id_))
                size += length or 0
            if ids:
                yield ids

    def _pages(self) -> Iterator[list[Any]]:
        last, query = b"", "SELECT id, length(data) FROM blobs WHERE id > :last ORDER BY id LIMIT :most"
        while page := self._rows(query, {"last": last, "most": _PAGE}):
            yield page
            last = bytes(page[-1][0])

    def _wanted(self, wanted: Sequence[bytes]) -> Iterator[list[Any]]:
        for start in range(0, len(wanted), _PAGE):
            some = wanted[start : start + _PAGE]
            rows = select_in(self._connection, "id, length(data)", "blobs", "id", some)
            yield sorted(rows, key=lambda row: bytes(row[0]))

    def _rows(self, query: str, values: dict[str, Any] | None = None) -> list[Any]:
        return list(self._connection.execute(text(query), values or {}).fetchall())

    def _stream(self, query: str, values: dict[str, Any]) -> Iterator[Any]:
        options = {"stream_results": True, "yield_per": _AT_ONCE}
        with self._connection.execute(text(query), values, execution_options=options) as rows:
            yield from rows


def _text_or_bytes(raw: bytes) -> str | bytes:
    """Text that isn't UTF-8 is what it is: it fits no hash, and must not end the reading."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _whole(value: object) -> int:
    return value if isinstance(value, int) else -1


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def _hex(value: object) -> str:
    return _bytes(value).hex()
