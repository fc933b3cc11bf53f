"""What records say of other records: hashes that checkpoints sign, and the checkpoints that others name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from llm_proxy.audit.findings import Finding, Findings, Places, RecordRow, Wrong
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.started import Place

_AT_ONCE = 400


class _Promise(NamedTuple):
    place: Place
    by: RecordRow
    is_checkpoint: bool


class Promises:
    """Kept or not, asked many at a time.

    Of each writer the first that isn't kept is told at the end, unless its chain itself tells what is wrong.
    """

    def __init__(self, places: Callable[[Sequence[tuple[str, int]]], Places], findings: Findings) -> None:
        self._places = places
        self._findings = findings
        self._open: list[_Promise] = []
        self._broken: dict[str, Finding] = {}

    def head(self, place: Place, by: RecordRow) -> None:
        """A chain's end, signed by checkpoint `by`."""
        self._add(_Promise(place, by, is_checkpoint=False))

    def checkpoint(self, place: Place, by: RecordRow) -> None:
        """A checkpoint that `by` names as the one before it."""
        self._add(_Promise(place, by, is_checkpoint=True))

    def tell(self) -> None:
        self._settle()
        for writer, finding in self._broken.items():
            if writer not in self._findings.broken_chains:
                self._findings.add(finding)

    def _settle(self) -> None:
        promises, self._open = self._open, []
        found = self._places(list({(p.place.writer, p.place.seq) for p in promises}))
        for promise in promises:
            self._judge(promise, found.get((promise.place.writer, promise.place.seq)))

    def _add(self, promise: _Promise) -> None:
        self._open.append(promise)
        if len(self._open) >= _AT_ONCE:
            self._settle()

    def _judge(self, promise: _Promise, found: tuple[str, bytes] | None) -> None:
        place, by = promise.place, promise.by
        told = f"checkpoint {by.place} signs it" if not promise.is_checkpoint else f"{by.place} names it"
        if found is None:
            what, why = Wrong.CUT_OFF, f"is missing, and {told}"
        elif found[1].hex() != place.hash:
            what, why = (
                Wrong.EDITED,
                f"has another hash than when {told}: the chain up to it was written anew",
            )
        elif promise.is_checkpoint and found[0] != RecordKind.CHECKPOINT:
            what, why = Wrong.EDITED, f"is no checkpoint, and {told} as one"
        else:
            return
        message = f"record {place.seq} of writer {place.writer} {why}"
        finding = Finding(table="records", row=f"{place.writer}/{place.seq}", what=what, message=message)
        self._broken.setdefault(place.writer, finding)
