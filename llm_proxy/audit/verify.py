"""Verifies a store: every chain to its head, every checkpoint, every row of content, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

import msgspec

from llm_proxy.audit.chains import Chain, Gap, Suspects
from llm_proxy.audit.checkpoint import Checkpoint, problem_of, read_checkpoint
from llm_proxy.audit.contents import Contents, NameList
from llm_proxy.audit.deletions import Deletions
from llm_proxy.audit.findings import Findings, Places, RecordRow, Report, Wrong
from llm_proxy.audit.promises import Promises
from llm_proxy.records.blobs import epoch_of
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.retention_bodies import read_deleted
from llm_proxy.records.started import Place, read_started

_TELL_EVERY = 2_000


class Evidence(Protocol):
    """What is verified: a store, or the tables into which an export was read. See `source.Source`."""

    def heads(self) -> dict[str, Place]: ...
    def writers(self, known: Iterable[str]) -> list[str]: ...
    def count(self) -> int: ...
    def records(self, writer: str, after: int) -> Iterable[RecordRow]: ...
    def before(self, writer: str) -> list[RecordRow]: ...
    def places(self, wanted: Sequence[tuple[str, int]]) -> Places: ...
    def checkpoints(self, writer: str) -> set[int]: ...
    def strays(self) -> list[str]: ...
    def covered(self) -> dict[str, int]: ...
    def salts(self) -> dict[int, bytes]: ...
    def purged(self) -> set[int]: ...
    def blobs(self, wanted: Sequence[bytes] | None = None) -> Iterable[tuple[Any, ...]]: ...
    def damage(self) -> list[tuple[str, str]]: ...


Progress = Callable[[str, int, int], None]
"""Told of what is being read, how much of it is done, and of how much (0 unknown). It may raise, to end."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is looked at. `starts`: where each chain is entered, for one that goes on from a checkpoint."""

    keys: Mapping[str, bytes]
    starts: Mapping[str, Place] | None = None
    gaps: Mapping[str, Sequence[Gap]] = field(default_factory=dict[str, Sequence[Gap]])
    """Rows that an export left out."""
    contents: bool = True
    kept: Iterable[RecordRow] = ()
    """Checkpoints that were kept elsewhere: the store must still have what they sign."""
    named_only: bool = False
    """Content that isn't there was left out."""
    state: bool = True
    """The `state_*` tables are there to be held against the evidence."""


def verify(evidence: Evidence, scope: Scope, limit: int, progress: Progress) -> Report:
    """Reads all of it. Raises what the database raises where it can't be read at all."""
    return _Verifying(evidence, scope, limit, progress).report()


class _Verifying:
    def __init__(self, evidence: Evidence, scope: Scope, limit: int, progress: Progress) -> None:
        self._evidence = evidence
        self._scope = scope
        self._progress = progress
        self._findings = Findings(limit)
        self._suspects = Suspects(self._findings)
        self._promises = Promises(evidence.places, self._findings)
        self._signed: dict[str, int] = {}
        self._newest: tuple[int, str] | None = None
        self._read = self._total = self._checkpoints = 0
        self._deletions = Deletions()
        self._older: int | None = None
        self._notes: list[str] = []

    def report(self) -> Report:
        began = monotonic()
        heads = self._evidence.heads()
        # One that a checkpoint covers may be gone with all that names it.
        writers = self._evidence.writers([*heads, *(self._scope.starts or ())])
        self._total = self._evidence.count()
        with NameList() as names:
            for writer in writers:
                self._chain(writer, heads.get(writer), names)
            for row in self._scope.kept:
                self._consider_kept(row)
            self._suspects.tell()
            self._promises.tell()
            self._standing(heads)
            contents = self._contents(names)
        for table, line in self._evidence.damage():
            self._findings.note(table, "", Wrong.DAMAGED, f"SQLite says: {line}")
        self._told(contents)
        return Report(
            intact=not self._findings.count,
            findings=tuple(self._findings.kept),
            found=self._findings.count,
            writers=len(writers),
            records=self._read,
            checkpoints=self._checkpoints,
            contents=contents.checked,
            deleted=contents.gone,
            newest_checkpoint=self._newest[1] if self._newest else None,
            newest_checkpoint_us=self._newest[0] if self._newest else None,
            unsigned=sum(max(0, head.seq - self._signed.get(id_, 0)) for id_, head in heads.items()),
            notes=tuple(self._notes),
            seconds=round(monotonic() - began, 3),
        )

    def _chain(self, writer: str, head: Place | None, names: NameList) -> None:
        start = (self._scope.starts or {}).get(writer)
        if start is not None:
            self._signed[writer] = start.seq
        chain = Chain(writer, self._findings, self._suspects, start)
        gaps = list(self._scope.gaps.get(writer, ()))
        found, last_us, first = set[int](), None, ""
        for row in self._evidence.before(writer):
            chain.follow(row)
        for row in self._evidence.records(writer, chain.seq):
            if not isinstance(row.seq, int):
                self._findings.record(row, Wrong.EDITED, "its number is none")
                continue
            while gaps and gaps[0].seq < row.seq:
                chain.skip(gaps.pop(0))
            first = first or (str(row.kind) if row.seq == 1 else "-")
            chain.follow(row)
            self._consider(row, names, found)
            last_us = row.at_us
            self._read += 1
            if self._read % _TELL_EVERY == 0:
                self._progress("records", self._read, self._total)
        for gap in gaps:
            chain.skip(gap)
        chain.end(head)
        if first not in ("", "-", RecordKind.WRITER_STARTED) and isinstance(last_us, int):
            self._older = max(self._older or 0, epoch_of(last_us))
        if self._scope.state and start is None:
            self._stand_where(writer, found)

    def _consider(self, row: RecordRow, names: NameList, checkpoints: set[int]) -> None:
        """What a row says of others."""
        try:
            match row.kind:
                case RecordKind.CHECKPOINT:
                    checkpoints.add(row.seq)
                    self._checkpoint(row, read_checkpoint(row.body))
                case RecordKind.WRITER_STARTED:
                    told = read_started(row.body).checkpoint
                    if told is not None:
                        self._promises.checkpoint(told, row)
                case RecordKind.CONTENT_STORED:
                    names.take(row)
                case RecordKind.CONTENT_DELETED:
                    self._deletions.take(read_deleted(row.body), row.at_us)
                case _:
                    pass
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError) as error:
            self._findings.record(row, Wrong.EDITED, f"its body can't be read: {str(error)[:200]}")

    def _consider_kept(self, row: RecordRow) -> None:
        told = read_checkpoint(row.body)
        if problem := problem_of(told, self._scope.keys):
            self._findings.note("kept checkpoints", row.place, Wrong.SIGNATURE, problem)
            return
        self._promises.checkpoint(Place(row.writer, row.seq, row.hash.hex()), row)
        for head in told.heads:
            self._promises.head(head, row)

    def _checkpoint(self, row: RecordRow, told: Checkpoint) -> None:
        self._checkpoints += 1
        if problem := problem_of(told, self._scope.keys):
            self._findings.record(row, Wrong.SIGNATURE, problem)
        if self._newest is None or told.at_us > self._newest[0]:
            self._newest = (told.at_us, row.place)
        for head in told.heads:
            self._signed[head.writer] = max(self._signed.get(head.writer, 0), head.seq)
            self._promises.head(head, row)
        if told.previous is not None:
            self._promises.checkpoint(told.previous, row)

    def _stand_where(self, writer: str, found: set[int]) -> None:
        """The evidence counts: what stands beside it must say the same."""
        noted = self._evidence.checkpoints(writer)
        for seq in sorted(found ^ noted, key=str):
            what = (Wrong.DELETED, "isn't noted here") if seq in found else (Wrong.INSERTED, "is none")
            row = f"{writer}/{seq}"
            self._findings.note(
                "state_checkpoints", row, what[0], f"the record {row} {what[1]} as a checkpoint"
            )

    def _standing(self, heads: Mapping[str, Place]) -> None:
        if not self._scope.state:
            return
        for writer in self._evidence.strays():
            if writer not in heads:
                what = f"a checkpoint of writer {writer} is noted, and the writer isn't there"
                self._findings.note("state_checkpoints", writer, Wrong.INSERTED, what)
        if self._scope.starts is None:
            for writer, seq in self._evidence.covered().items():
                if seq > self._signed.get(writer, 0):
                    what = (
                        f"it says signed to {seq}, and checkpoints sign it to {self._signed.get(writer, 0)}"
                    )
                    self._findings.note("state_covered", writer, Wrong.EDITED, what)
        purged = self._evidence.purged() if self._scope.starts is None else set[int]()
        for epoch in sorted(purged - self._deletions.days):
            what = f"no record says that the content of day {epoch} was deleted"
            self._findings.note("state_purged", str(epoch), Wrong.INSERTED, what)

    def _contents(self, names: NameList) -> Contents:
        deleted = self._deletions.days
        if self._scope.starts is not None:
            deleted |= self._evidence.purged()
        salts = self._evidence.salts() if self._scope.contents else {}
        contents = Contents(salts, deleted.__contains__, self._findings, self._older)
        contents.partial = self._scope.named_only
        if not self._scope.contents:
            return contents
        if self._scope.starts is None:
            rows = self._evidence.blobs()
            for count in contents.compare(names, rows):
                self._progress("contents", count, 0)
            if not contents.partial:
                self._deletions.tell(contents.there, self._findings)
            return contents
        for some in names.chunks():
            rows = self._evidence.blobs([name.id for name in some])
            for count in contents.compare(some, rows):
                self._progress("contents", count, 0)
        return contents

    def _told(self, contents: Contents) -> None:
        if contents.unproven:
            self._notes.append(
                f"{contents.unproven} rows of content are of an earlier version and were masked: "
                "nothing says how they were stored"
            )
        if not self._checkpoints and self._scope.starts is None:
            self._notes.append(
                "no checkpoint signs these records: whoever can write to the store can write them anew"
            )
