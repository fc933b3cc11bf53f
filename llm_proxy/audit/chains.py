"""Follows the writers' chains: every row, from its first to its writer's head. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

from llm_proxy.audit.findings import Findings, RecordRow, Wrong
from llm_proxy.records.chain import GENESIS
from llm_proxy.records.started import Place

MOST_SUSPECTS = 24
"""Rows that don't follow of which it's asked whether they changed places."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Rows that were left out of an export: `seq` is the last of them, and has `hash`."""

    first: int
    seq: int
    hash: bytes


@dataclass(slots=True)
class Suspect:
    """A row that doesn't follow from the one before."""

    row: RecordRow
    previous: bytes
    """The hash of the row before, as stored."""
    due: bytes | None
    """What its hash should be, were the row before right."""
    after: bool
    """The row before doesn't follow either."""
    hash_only: bool = False
    """What follows fits the hash that was due: the stored one alone was changed."""


class Suspects:
    """All rows that don't follow, of all chains; told at the end, when it's known how they hang together."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._kept: list[Suspect] = []

    def add(self, suspect: Suspect) -> None:
        if len(self._kept) >= MOST_SUSPECTS:
            self._tell(suspect)
        else:
            self._kept.append(suspect)

    def tell(self) -> None:
        left, true = list(self._kept), dict[tuple[str, int], bytes]()
        for one, other in permutations(self._kept, 2):
            if one in left and other in left and (found := _exchanged(one, other)) is not None:
                self._tell_exchange(one.row, other.row)
                left.remove(one)
                left.remove(other)
                true |= found
        for suspect in left:
            if not _follows(suspect, true):
                self._tell(suspect)

    def _tell_exchange(self, one: RecordRow, other: RecordRow) -> None:
        for row, with_ in ((one, other), (other, one)):
            self._findings.record(
                row,
                Wrong.REORDERED,
                f"stands where {with_.place} was, and that one here: they were exchanged",
            )

    def _tell(self, suspect: Suspect) -> None:
        if suspect.hash_only:
            message = "its hash was changed: the record after it follows from another"
        elif suspect.after:
            message = "it doesn't follow from the record before: its columns were changed, or that one's hash"
        else:
            message = f"one of its columns was changed: it isn't what was hashed{_or_before(suspect.row.seq)}"
        self._findings.record(suspect.row, Wrong.EDITED, message)


class Chain:
    """One writer's rows, given in order of seq. `start` is where it's entered, with that row's hash."""

    def __init__(
        self, writer: str, findings: Findings, suspects: Suspects, start: Place | None = None
    ) -> None:
        self.writer = writer
        self.seq = start.seq if start is not None else 0
        self._findings = findings
        self._suspects = suspects
        self._stored = bytes.fromhex(start.hash) if start is not None else GENESIS
        self._due: bytes | None = self._stored
        self._doubt: Suspect | None = None
        self._gone: int | None = None
        """The last of rows that are missing, if any were."""

    def skip(self, gap: Gap) -> None:
        """Goes on behind rows that aren't given."""
        self._expect(gap.first)
        self.seq, self._stored, self._due, self._doubt = gap.seq, gap.hash, gap.hash, None

    def follow(self, row: RecordRow) -> None:
        if row.seq <= self.seq:
            self._findings.record(row, Wrong.INSERTED, "its number is one that no record of a writer has")
            return
        self._expect(row.seq)
        hash_ = row.hash if isinstance(row.hash, bytes) else b""
        doubt, self._doubt = self._doubt, None
        # What is gone can't be followed from: its successor is taken as it is.
        due = hash_ if self._gone == row.seq - 1 else self._linked(row, hash_, doubt)
        self.seq, self._stored, self._due = row.seq, hash_, due

    def end(self, head: Place | None) -> None:
        """After the last row. `head` is the writer's in `state_writers`, None where it isn't there."""
        name = f"writer {self.writer}"
        if head is None:
            gone = f"{name} has records to {self.seq}, and no row here"
            self._findings.note("state_writers", self.writer, Wrong.DELETED, gone)
        elif head.seq > self.seq:
            rows = _rows(self.seq + 1, head.seq)
            self._findings.missing(self.writer, head.seq, Wrong.CUT_OFF, f"{rows} of {name} are missing")
        elif head.seq < self.seq:
            what = (
                f"the head is {head.seq}, and records go to {self.seq}: it was set back, or they were added"
            )
            self._findings.note("state_writers", self.writer, Wrong.EDITED, what)
        elif head.hash != self._stored.hex():
            if self._doubt is not None and self._due is not None and head.hash == self._due.hex():
                self._doubt.hash_only = True
            elif self._doubt is None:
                what = f"the head's hash isn't that of record {self.seq}"
                self._findings.note("state_writers", self.writer, Wrong.EDITED, what)

    def _linked(self, row: RecordRow, hash_: bytes, doubt: Suspect | None) -> bytes | None:
        """What the row's hash should be. It's a suspect where that isn't the one that is stored."""
        due = row.at(self.writer, row.seq, self._stored)
        if due == hash_:
            return due
        if doubt is not None and self._due is not None and row.at(self.writer, row.seq, self._due) == hash_:
            doubt.hash_only = True
            return hash_
        self._doubt = Suspect(row, self._stored, due, after=doubt is not None)
        self._suspects.add(self._doubt)
        return due

    def _expect(self, seq: int) -> None:
        if seq == self.seq + 1:
            return
        self._gone = seq - 1
        first, rows = self.seq + 1, _rows(self.seq + 1, seq - 1)
        message = f"{rows} of writer {self.writer} are missing, so that record {seq} can't be checked"
        self._findings.missing(self.writer, first, Wrong.DELETED, message)


def _or_before(seq: int) -> str:
    """A row that was written anew with its hash is as it should be, and only the next one doesn't follow."""
    return f" (or record {seq - 1} was written anew, with its hash)" if seq > 1 else ""


def _rows(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"


def _exchanged(one: Suspect, other: Suspect) -> dict[tuple[str, int], bytes] | None:
    """The true hashes at both places, where each row was hashed in the other's place; None where not.

    The one whose place comes first in a chain is asked first, since the row before it is right. Their hashes
    may have moved with them or not.
    """
    here, there = (one.row.writer, one.row.seq), (other.row.writer, other.row.seq)
    mine = other.row.at(*here, one.previous)
    if mine is None or mine not in (one.row.hash, other.row.hash):
        return None
    previous = mine if there == (here[0], here[1] + 1) else other.previous
    its = one.row.at(*there, previous)
    if its is None or its not in (one.row.hash, other.row.hash) or its == mine:
        return None
    return {here: mine, there: its}


def _follows(suspect: Suspect, true: dict[tuple[str, int], bytes]) -> bool:
    """Whether it's right after all, given the hash that truly stood before it."""
    previous = true.get((suspect.row.writer, suspect.row.seq - 1))
    return (
        previous is not None
        and suspect.row.at(suspect.row.writer, suspect.row.seq, previous) == suspect.row.hash
    )
