"""What verifying found: each finding names the table, the row, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from llm_proxy.records.chain import Row, link


class Wrong(StrEnum):
    EDITED = "edited"
    DELETED = "deleted"
    INSERTED = "inserted"
    REORDERED = "reordered"
    CUT_OFF = "cut off at the end"
    SIGNATURE = "signature wrong"
    DAMAGED = "damaged"
    """The database can't read it."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. `row` is the key of the row: `WRITER/SEQ`, or what its table goes by."""

    table: str
    row: str
    what: Wrong
    message: str
    kind: str = ""
    call_id: str = ""
    run_id: str = ""
    agent_id: str = ""
    at_us: int | None = None


class RecordRow(NamedTuple):
    """A row of `records` as it's stored: where somebody changed it, of whatever type."""

    writer: str
    seq: Any
    kind: Any
    at_us: Any
    call_id: Any
    run_id: Any
    agent_id: Any
    body: Any
    hash: Any

    @property
    def place(self) -> str:
        return f"{self.writer}/{self.seq}"

    def at(self, writer: str, seq: int, previous: bytes) -> bytes | None:
        """Its hash, stood it there behind `previous`; None where it can have none."""
        try:
            return link(previous, Row(writer, seq, *self[2:8]))
        except (TypeError, ValueError, OverflowError):
            return None


class Findings:
    """Keeps the first `limit`, and counts all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.count = 0
        self.broken_chains: set[str] = set()
        """Writers of whose records something is wrong that their chain shows."""
        self.kept: list[Finding] = []

    def add(self, finding: Finding) -> None:
        self.count += 1
        if len(self.kept) < self._limit:
            self.kept.append(finding)

    def note(self, table: str, row: str, what: Wrong, message: str) -> None:
        self.add(Finding(table=table, row=row, what=what, message=message))

    def missing(self, writer: str, seq: int, what: Wrong, message: str) -> None:
        """Of a row of `records` that isn't there."""
        self.broken_chains.add(writer)
        self.note("records", f"{writer}/{seq}", what, message)

    def record(self, row: RecordRow, what: Wrong, message: str) -> None:
        """Of a row of `records`, with what it says of itself."""
        self.broken_chains.add(row.writer)
        self.add(
            Finding(
                table="records",
                row=row.place,
                what=what,
                message=message,
                kind=_text(row.kind),
                call_id=_text(row.call_id),
                run_id=_text(row.run_id),
                agent_id=_text(row.agent_id),
                at_us=row.at_us if isinstance(row.at_us, int) else None,
            )
        )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, and what is wrong with it."""

    intact: bool
    findings: tuple[Finding, ...]
    found: int
    """How many there are, shown or not."""
    writers: int
    records: int
    checkpoints: int
    contents: int
    """Rows of `blobs` that are as they were stored."""
    deleted: int
    """Rows of `blobs` that retention deleted, as a record says."""
    newest_checkpoint: str | None
    """`WRITER/SEQ`."""
    newest_checkpoint_us: int | None
    unsigned: int
    """Records that no checkpoint covers yet: their end can be cut off unseen."""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


Places = Mapping[tuple[str, int], tuple[str, bytes]]
"""The kind and the hash of records, by writer and seq."""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
