"""Writes records out, with what it takes to verify them without the store."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
import zstandard

from llm_proxy.audit import lines
from llm_proxy.audit.chains import Chain, Suspects
from llm_proxy.audit.checkpoint import read_checkpoint
from llm_proxy.audit.findings import Findings, RecordRow
from llm_proxy.audit.lines import Filter
from llm_proxy.audit.source import Source
from llm_proxy.records.blobs import Codec
from llm_proxy.records.bodies import Closed, Content, Opened
from llm_proxy.records.content_reads import Place as Door
from llm_proxy.records.evidence import Draft, RecordKind
from llm_proxy.records.folding import DEEPEST, inside, parts_of
from llm_proxy.records.started import Place
from llm_proxy.records.times import iso
from llm_proxy.signing import SigningKey
from llm_proxy.signing.key import b64
from llm_proxy.version import VERSION

_PROOF = frozenset({RecordKind.WRITER_STARTED, RecordKind.CHECKPOINT, RecordKind.CONTENT_DELETED})
_ADDRESS = re.compile(rb'"([0-9a-f]{64}|[0-9a-f]{32})"')
_AT_ONCE = 500


class CannotExport(Exception):
    """A row is not as any proxy wrote it; the message says which."""


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `records.exported`, by `audit export`."""

    by: str
    place: Door
    what: str
    filter: Filter
    content: bool
    records: int
    """How many the store had when it was read, of which the filter takes its share."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is exported, by whom, and with which key it is signed."""

    by: str
    filter: Filter
    content: bool
    key: SigningKey | None
    now_us: int

    @property
    def whole(self) -> bool:
        return self.filter == Filter()


def exported_draft(order: Order, place: Door, records: int) -> Draft:
    """The record of an export: committed before anything is written out."""
    body = Exported(
        by=order.by,
        place=place,
        what="audit export",
        filter=order.filter,
        content=order.content,
        records=records,
    )
    run, agent = order.filter.run, order.filter.agent
    return Draft(RecordKind.RECORDS_EXPORTED, order.now_us, None, run, agent, msgspec.json.encode(body))


def export(source: Source, order: Order) -> Iterator[bytes]:
    """The lines. Raises `CannotExport`, and what the database raises."""
    return _Export(source, order).lines()


class _Export:
    def __init__(self, source: Source, order: Order) -> None:
        self._source = source
        self._order = order
        self._sha256 = hashlib.sha256()
        self._lines = self._records = self._blobs = 0
        self._findings = Findings(limit=1)
        self._suspects = Suspects(self._findings)
        self._signed: set[tuple[str, int]] = set()

    def lines(self) -> Iterator[bytes]:
        for line in self._all():
            self._sha256.update(line)
            self._lines += 1
            yield line
        yield self._end()

    def _all(self) -> Iterator[bytes]:
        order = self._order
        keys = (order.key.jwk(),) if order.key is not None else ()
        yield lines.line(
            header=lines.Header(
                format=lines.FORMAT,
                version=VERSION,
                at_us=order.now_us,
                at=iso(order.now_us),
                by=order.by,
                filter=order.filter,
                whole=order.whole,
                content=order.content,
                keys=keys,
            )
        )
        heads = self._source.heads()
        if not order.whole:
            self._signed = self._signed_places(heads)
        with _Wanted() as wanted:
            for writer, head in heads.items():
                yield lines.line(writer=lines.WriterLine(writer, head.seq, head.hash))
                yield from self._chain(writer, head, wanted)
            self._suspects.tell()
            yield from (lines.line(purged=epoch) for epoch in sorted(self._source.purged()))
            if order.content:
                yield from self._content(wanted)

    def _chain(self, writer: str, head: Place, wanted: _Wanted) -> Iterator[bytes]:
        chain, left_out = Chain(writer, self._findings, self._suspects), list[RecordRow]()
        for row in self._source.records(writer, 0):
            chain.follow(row)
            if self._is_in(row):
                yield from _omitted(left_out)
                left_out = []
                if self._order.content and not self._order.whole:
                    wanted.take(row)
                self._records += 1
                yield _checked(row)
            else:
                # The first and the last of a stretch are all that is told of it.
                left_out = [left_out[0], row] if left_out else [row, row]
                if (writer, row.seq) in self._signed:
                    yield from _omitted(left_out)
                    left_out = []
        yield from _omitted(left_out)
        chain.end(head)

    def _is_in(self, row: RecordRow) -> bool:
        wish = self._order.filter
        if wish.checkpoints:
            return row.kind == RecordKind.CHECKPOINT
        if row.kind in _PROOF or (row.kind == RecordKind.CONTENT_STORED and self._order.content):
            return True
        return (
            (wish.since_us is None or row.at_us >= wish.since_us)
            and (wish.until_us is None or row.at_us < wish.until_us)
            and (wish.agent is None or row.agent_id == wish.agent)
            and (wish.run is None or row.run_id == wish.run)
        )

    def _signed_places(self, heads: dict[str, Place]) -> set[tuple[str, int]]:
        """The records that checkpoints sign: their hashes are told even where they are left out."""
        found: set[tuple[str, int]] = set()
        for writer in heads:
            for row in self._source.checkpoint_rows(writer):
                try:
                    found.update((head.writer, head.seq) for head in read_checkpoint(row.body).heads)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    raise _changed(row) from None
        return found

    def _content(self, wanted: _Wanted) -> Iterator[bytes]:
        salts, told = self._source.salts(), set[int]()
        if not self._order.whole:
            wanted.open_blocks(self._source)
        pages = iter([None]) if self._order.whole else wanted.pages()
        for page in pages:
            for row in self._source.blobs(page):
                epoch = row[1]
                if epoch in salts and epoch not in told:
                    told.add(epoch)
                    yield lines.line(salt=lines.SaltLine(epoch, salts[epoch].hex()))
                self._blobs += 1
                try:
                    yield lines.blob_line(row)
                except (TypeError, ValueError):
                    raise _changed_content(row[0]) from None

    def _end(self) -> bytes:
        digest, key = self._sha256.digest(), self._order.key
        sound = not self._findings.count and key is not None
        return lines.line(
            end=lines.End(
                lines=self._lines,
                records=self._records,
                blobs=self._blobs,
                sha256=digest.hex(),
                problems=self._findings.count,
                key=key.id if key is not None and sound else "",
                signature=b64(key.sign(lines.END + digest)) if key is not None and sound else "",
            )
        )


class _Begun(msgspec.Struct, frozen=True):
    """A `call.opened` or `call.closed`, or the `call.refused` that has both in it."""

    content: Content | None = None
    sent: Content | None = None
    opened: Opened | None = None
    closed: Closed | None = None


_read_begun = msgspec.json.Decoder(_Begun).decode


class _Wanted:
    """Addresses of content that records name, each once, in a temporary file that goes with it."""

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute("CREATE TABLE wanted (id BLOB PRIMARY KEY) WITHOUT ROWID")
        self._file.execute(
            "CREATE TABLE blocks (level INTEGER, id BLOB, PRIMARY KEY (level, id)) WITHOUT ROWID"
        )
        self._file.execute("BEGIN")

    def __enter__(self) -> _Wanted:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take(self, row: RecordRow) -> None:
        """Raises `CannotExport`."""
        self._add((0, bytes.fromhex(id_.decode())) for id_ in _ADDRESS.findall(row.body))
        if b'"fold":' not in row.body:
            return
        try:
            told = _read_begun(row.body)
            inner = told.opened.content if told.opened else None, told.closed.sent if told.closed else None
            contents = [told.content, told.sent, *inner]
            self._add(part for one in contents if one and one.fold for part in parts_of(one.fold))
        except ValueError:
            raise _changed(row) from None

    def open_blocks(self, source: Source) -> None:
        """Adds what the blocks of addresses hold, and the blocks themselves, from the highest level down."""
        codec = Codec()
        query = f"SELECT id FROM blocks WHERE level = ? AND id > ? ORDER BY id LIMIT {_AT_ONCE}"  # noqa: S608
        for level in range(DEEPEST, 0, -1):
            last = b""
            while page := [id_ for (id_,) in self._file.execute(query, (level, last))]:
                last = page[-1]
                self._add((0, id_) for id_ in page)
                for id_, _, name, size, data in source.blobs(page):
                    try:
                        block = codec.unpack(name, bytes(data), size)
                    except (zstandard.ZstdError, TypeError, ValueError):
                        raise _changed_content(id_) from None
                    self._add((level - 1, each) for each in inside(block, len(id_)))

    def _add(self, found: Iterable[tuple[int, bytes]]) -> None:
        for level, id_ in found:
            if level:
                self._file.execute("INSERT OR IGNORE INTO blocks VALUES (?, ?)", (level, id_))
            else:
                self._file.execute("INSERT OR IGNORE INTO wanted VALUES (?)", (id_,))

    def pages(self) -> Iterator[list[bytes]]:
        last = b""
        query = f"SELECT id FROM wanted WHERE id > ? ORDER BY id LIMIT {_AT_ONCE}"  # noqa: S608 (a constant)
        while page := [id_ for (id_,) in self._file.execute(query, (last,))]:
            yield page
            last = page[-1]


def _omitted(stretch: list[RecordRow]) -> Iterator[bytes]:
    if stretch:
        first, last = stretch[0], stretch[-1]
        yield lines.line(omitted=lines.OmittedLine(first.writer, first.seq, last.seq, last.hash.hex()))


def _checked(row: RecordRow) -> bytes:
    try:
        return lines.record_line(row)
    except (TypeError, ValueError, AttributeError, msgspec.ValidationError):
        raise _changed(row) from None


def _changed_content(id_: bytes) -> CannotExport:
    return CannotExport(f"The row {id_.hex()} of blobs was changed: verify first.")


def _changed(row: RecordRow) -> CannotExport:
    return CannotExport(f"Record {row.place} was changed: `llm-proxy audit verify` says how.")
