"""Verifies an export with no store: its lines become tables of a temporary file, and those are verified."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, create_engine
from sqlalchemy.pool import StaticPool

from llm_proxy.audit import lines
from llm_proxy.audit.chains import Gap
from llm_proxy.audit.checkpoint import read_checkpoint
from llm_proxy.audit.findings import Finding, Places, RecordRow, Report, Wrong
from llm_proxy.audit.keys import jwks
from llm_proxy.audit.source import Source
from llm_proxy.audit.verify import Progress, Scope, verify
from llm_proxy.records import audit_tables, tables
from llm_proxy.records.evidence import RecordKind
from llm_proxy.signing.key import signed_by

MOST_BYTES = 256 << 20
"""Of one line: content of the largest body, as base64, has a quarter of it."""
_AT_ONCE = 1_000
_TABLES = (tables.records, tables.blobs, tables.writers, tables.salts, audit_tables.purged)


class BadExport(Exception):
    """It isn't an export that this version reads; the message names the line."""


class _Partial(Source):
    """An export's tables, with the hashes of records that were left out."""

    def __init__(self, connection: Connection, gaps: Iterable[tuple[str, Gap]]) -> None:
        super().__init__(connection)
        self._left_out = {(writer, gap.seq): ("", gap.hash) for writer, gap in gaps}

    def places(self, wanted: Sequence[tuple[str, int]]) -> Places:
        there = {place: self._left_out[place] for place in wanted if place in self._left_out}
        return there | dict(super().places(wanted))


class _Reading:
    """Puts lines into tables, in order, and remembers what isn't a row."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sha256 = hashlib.sha256()
        self._open: dict[str, list[tuple[Any, ...]]] = {}
        self._inserts = {table.name: _insert(table) for table in _TABLES}
        self.count = self.records = 0
        self.header: lines.Header | None = None
        self.end: lines.End | None = None
        self.gaps: list[tuple[str, Gap]] = []
        self.problems: list[str] = []

    def take(self, raw: bytes) -> None:
        """Raises ValueError for what is no line, or stands out of place."""
        line = lines.read_line(raw)
        if (self.header is None) is not (line.header is not None) or self.end is not None:
            raise ValueError("the header is the first line, and the end the last")
        if line.end is not None:
            self._ended(line.end)
            return
        self._sha256.update(raw)
        self.count += 1
        match line:
            case lines.Line(header=lines.Header() as header):
                if header.format != lines.FORMAT:
                    raise ValueError(
                        f"it is of format {header.format}, and this version reads {lines.FORMAT}"
                    )
                self.header = header
            case lines.Line(writer=lines.WriterLine() as writer):
                head = (writer.id, self.count, 0, writer.head_seq, bytes.fromhex(writer.head_hash), 0)
                self._add(tables.writers, head)
            case lines.Line(record=lines.RecordLine() as record):
                self.records += 1
                self._add(tables.records, record.row())
            case lines.Line(omitted=lines.OmittedLine() as gap):
                self.gaps.append((gap.writer, Gap(gap.first, gap.last, bytes.fromhex(gap.hash))))
            case lines.Line(salt=lines.SaltLine() as salt):
                self._add(tables.salts, (salt.epoch, bytes.fromhex(salt.salt)))
            case lines.Line(blob=lines.BlobLine() as blob):
                self._add(tables.blobs, blob.row())
            case lines.Line(purged=int() as epoch):
                self._add(audit_tables.purged, (epoch, 0, 0))
            case _:
                raise ValueError("it says nothing")

    def flush(self) -> None:
        for name, rows in self._open.items():
            self._connection.exec_driver_sql(self._inserts[name], rows)
        self._open = {}

    def _add(self, table: Table, row: tuple[Any, ...]) -> None:
        rows = self._open.setdefault(table.name, [])
        rows.append(row)
        if len(rows) >= _AT_ONCE or table is tables.blobs:
            self.flush()

    def _ended(self, end: lines.End) -> None:
        self.end = end
        if (end.sha256, end.lines) != (self._sha256.hexdigest(), self.count):
            self.problems.append("its lines aren't those that were written: their digest or number differs")
        if end.problems:
            self.problems.append(f"{end.problems} things were wrong with the store when it was written")

    def unsigned(self, keys: Mapping[str, bytes]) -> str:
        """What is wrong with the signature of the end; empty where it's right."""
        if self.end is None:
            return "it has no end: it was cut off"
        if not self.end.signature:
            return "" if self.header is not None and self.header.whole else "its end isn't signed"
        public = keys.get(self.end.key)
        if public is None:
            return f"its end is signed by key {self.end.key[:64]}, which was not given"
        try:
            good = signed_by(public, self.end.signature, lines.END + bytes.fromhex(self.end.sha256))
        except ValueError:
            good = False
        return "" if good else "the signature of its end is wrong"


def verify_export(path: Path, keys: Mapping[str, bytes] | None, limit: int, progress: Progress) -> Report:
    """`keys`: None takes those of the export itself, which proves nothing of who wrote it.

    Raises `BadExport`, and OSError.
    """
    with _tables() as connection:
        found = _read(path, connection, progress)
        assert found.header is not None
        given = keys if keys is not None else _own(found.header)
        gaps: dict[str, list[Gap]] = {}
        for writer, gap in found.gaps:
            gaps.setdefault(writer, []).append(gap)
        whole = found.header.whole
        scope = Scope(keys=given, gaps=gaps, contents=found.header.content, state=False, named_only=not whole)
        report = verify(_Partial(connection, found.gaps), scope, limit, progress)
    problems = [*found.problems, *filter(None, [found.unsigned(given)])]
    return _with(report, problems, found.header, own=keys is None)


def kept_checkpoints(path: Path) -> Iterator[RecordRow]:
    """The checkpoints in an export. Raises `BadExport`, and OSError."""
    for number, raw in _numbered(path):
        try:
            record = lines.read_line(raw).record
            if record is not None and record.kind == RecordKind.CHECKPOINT:
                row = RecordRow(*record.row())
                read_checkpoint(row.body)
                yield row
        except (msgspec.DecodeError, ValueError) as error:
            raise BadExport(f"{path}:{number}: no line of an export: {str(error)[:200]}") from None


def _with(report: Report, problems: list[str], header: lines.Header, *, own: bool) -> Report:
    findings = [
        Finding(table="export", row="end", what=Wrong.SIGNATURE, message=problem) for problem in problems
    ]
    notes = list(report.notes)
    if own:
        notes.append("the keys are the export's own: give --key, with one that you have from elsewhere")
    if not header.whole:
        notes.append(
            "records were left out: that the others hang together in the store's chains rests on "
            "the signature of the export's end"
        )
    if not header.content:
        notes.append("the export holds no content")
    return msgspec.structs.replace(
        report,
        intact=report.intact and not findings,
        findings=(*findings, *report.findings),
        found=report.found + len(findings),
        notes=tuple(notes),
    )


def _read(path: Path, connection: Connection, progress: Progress) -> _Reading:
    reading = _Reading(connection)
    for number, raw in _numbered(path):
        try:
            reading.take(raw)
        except (msgspec.DecodeError, ValueError, TypeError, OverflowError) as error:
            raise BadExport(f"{path}:{number}: no line of an export: {str(error)[:200]}") from None
        if number % _AT_ONCE == 0:
            progress("lines", number, 0)
    reading.flush()
    if reading.header is None:
        raise BadExport(f"{path}: it is empty: `llm-proxy audit export` writes one.")
    return reading


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MOST_BYTES):
            number += 1
            yield number, raw


def _own(header: lines.Header) -> dict[str, bytes]:
    try:
        return jwks(msgspec.json.encode({"keys": header.keys}))
    except ValueError:
        return {}


@contextmanager
def _tables() -> Generator[Connection]:
    with tempfile.TemporaryDirectory(prefix="llm-proxy-audit-") as folder:
        engine = create_engine(f"sqlite:///{folder}/export.db", poolclass=StaticPool)
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA synchronous=OFF")
                tables.METADATA.create_all(connection, tables=list(_TABLES))
                yield connection
                connection.rollback()
        finally:
            engine.dispose()


def _insert(table: Table) -> str:
    """Names are those of our tables; what stands twice is kept once, and a chain shows what that hides."""
    names = [column.name for column in table.columns if column.server_default is None]
    marks = ", ".join("?" * len(names))
    return f"INSERT OR IGNORE INTO {table.name} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608
