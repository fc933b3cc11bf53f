"""Holds the rows of `blobs` against what `content.stored` says of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby, islice
from operator import itemgetter
from types import TracebackType
from typing import Any, NamedTuple

import zstandard

from llm_proxy.audit.findings import Findings, RecordRow, Wrong
from llm_proxy.records.blobs import Codec, keyed
from llm_proxy.records.stored import named_in, row_digest

_AT_ONCE = 4_000
_OLDER = 32
"""Bytes of an address in stores of the versions that named no content."""
_MOST_OF_A_DAY = 20
"""Findings of one day that wait until it's known whether its salt is at fault."""


class Named(NamedTuple):
    """What `content.stored` says of one row. Several transactions may have brought it, each its own way."""

    id: bytes
    epoch: int
    digests: frozenset[bytes]
    by: str


class NameList:
    """Every row that the chains name, in order of ids, in a temporary file of SQLite's that goes with it."""

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute("PRAGMA cache_size=-32000")
        self._file.execute(
            "CREATE TABLE named (id BLOB, digest BLOB, epoch INTEGER, record TEXT, PRIMARY KEY (id, digest)) "
            "WITHOUT ROWID"
        )
        self._file.execute("BEGIN")
        self._open: list[tuple[bytes, bytes, int, str]] = []

    def __enter__(self) -> NameList:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def take(self, row: RecordRow) -> None:
        """A `content.stored`. Raises ValueError for one that can't be read."""
        by = row.place
        self._open += [(id_, digest, epoch, by) for epoch, id_, digest in named_in(row.body)]
        if len(self._open) >= _AT_ONCE:
            self._write()

    def __iter__(self) -> Iterator[Named]:
        self._write()
        rows = self._file.execute("SELECT id, digest, epoch, record FROM named ORDER BY id")
        for id_, group in groupby(rows, itemgetter(0)):
            found = list(group)
            yield Named(id_, found[0][2], frozenset(row[1] for row in found), found[0][3])

    def chunks(self) -> Iterator[list[Named]]:
        """The same, some thousand at a time."""
        names = iter(self)
        while some := list(islice(names, _AT_ONCE)):
            yield some

    def _write(self) -> None:
        self._file.executemany("INSERT OR IGNORE INTO named VALUES (?, ?, ?, ?)", sorted(self._open))
        self._open = []


class Contents:
    """`older` is the last day of which content may stand unnamed: that of a store of an earlier version."""

    def __init__(
        self, salts: Mapping[int, Any], deleted: Callable[[int], bool], findings: Findings, older: int | None
    ) -> None:
        self._salts = salts
        self._deleted = deleted
        self._findings = findings
        self._older = older
        self._codec = Codec()
        self._good: dict[int, int] = {}
        self._bad: dict[int, list[tuple[str, Wrong, str]]] = {}
        self._unsalted: set[int] = set()
        self.partial = False
        """Content that isn't there was left out."""
        self.there: dict[int, int] = {}
        """Rows that are there of days that were deleted, by day."""
        self.checked = 0
        self.gone = 0
        self.unproven = 0

    def compare(self, named: Iterable[Named], rows: Iterable[tuple[Any, ...]]) -> Iterator[int]:
        """Both in order of ids. Yields how many rows were read, now and then."""
        due = iter(named)
        name = next(due, None)
        for count, row in enumerate(rows):
            while name is not None and name.id < row[0]:
                self._missing(name)
                name = next(due, None)
            if name is not None and name.id == row[0]:
                self._check(name, row)
                name = next(due, None)
            else:
                self._unnamed(row)
            if self._deleted(row[1]):
                self.there[row[1]] = self.there.get(row[1], 0) + 1
            if count % 1_000 == 0:
                yield count
        while name is not None:
            self._missing(name)
            name = next(due, None)
        self._tell()

    def _check(self, name: Named, row: tuple[Any, ...]) -> None:
        salt = self._salts.get(name.epoch)
        if not isinstance(salt, bytes):
            if name.epoch not in self._unsalted:
                self._unsalted.add(name.epoch)
                what = f"the salt of day {name.epoch} is gone, and content of that day is there"
                self._findings.note("state_salts", str(name.epoch), Wrong.DELETED, what)
        elif _digest(salt, row) in name.digests:
            self.checked += 1
            self._good[name.epoch] = self._good.get(name.epoch, 0) + 1
        else:
            what = f"it isn't what record {name.by} stored: a column of it was changed"
            self._put_by(name.epoch, name.id, Wrong.EDITED, what)

    def _missing(self, name: Named) -> None:
        if self._deleted(name.epoch):
            self.gone += 1
        if self.partial or self._deleted(name.epoch):
            return
        why = f"record {name.by} stored it, and no record says that day {name.epoch} was deleted"
        self._findings.note("blobs", name.id.hex(), Wrong.DELETED, why)

    def _unnamed(self, row: tuple[Any, ...]) -> None:
        id_, epoch = row[0], row[1]
        old = self._older is not None and isinstance(epoch, int) and epoch <= self._older
        if not old or len(id_) != _OLDER:
            self._findings.note("blobs", id_.hex(), Wrong.INSERTED, "no record stored it")
        elif self._fits_address(row):
            self.checked += 1
        else:
            self.unproven += 1

    def _fits_address(self, row: tuple[Any, ...]) -> bool:
        """Whether the address is that of the content: not where it was masked before it was stored."""
        id_, epoch, codec, size, data = row
        salt = self._salts.get(epoch)
        if not isinstance(salt, bytes):
            return False
        try:
            address = keyed(self._codec.unpack(codec, data, size), salt)
        except (zstandard.ZstdError, TypeError, ValueError):
            return False
        return id_ == address or id_[6:] == address[: _OLDER - 6]

    def _put_by(self, epoch: int, id_: bytes, what: Wrong, why: str) -> None:
        bad = self._bad.setdefault(epoch, [])
        if len(bad) < _MOST_OF_A_DAY:
            bad.append((id_.hex(), what, why))
        else:
            self._findings.note("blobs", id_.hex(), what, why)

    def _tell(self) -> None:
        """Where no content of a day is as it was stored, it is the salt that was changed, if it isn't all."""
        for epoch, bad in self._bad.items():
            if not self._good.get(epoch):
                what = f"nothing of day {epoch} fits: the day's salt was changed, or every row below"
                self._findings.note("state_salts", str(epoch), Wrong.EDITED, what)
            for id_, what, why in bad:
                self._findings.note("blobs", id_, what, why)


def _digest(salt: bytes, row: tuple[Any, ...]) -> bytes | None:
    """None for a row that nothing was stored as."""
    try:
        return row_digest(salt, *row)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None
