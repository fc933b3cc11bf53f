"""What a reconciliation finds: where two books disagree, and what each of them says."""

from __future__ import annotations

import msgspec

MOST_SHOWN = 200


class Drift(msgspec.Struct, frozen=True):
    """`book` says `found` of `what` at `where`; by the book before it, it should be `expected`."""

    book: str
    where: str
    what: str
    expected: int | str
    found: int | str


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """`drifts` has the first `MOST_SHOWN` of `drift_count`. Money is in micro-dollars."""

    drifts: tuple[Drift, ...]
    drift_count: int
    calls: int
    open_calls: int
    micro_usd: int
    tokens: int
    days: int
    counters: int | None
    """None where the ledger was not compared: it counts from the beginning, and a time was asked for."""
    holds: int | None


class Found:
    """Drifts as they are found."""

    def __init__(self) -> None:
        self.shown: list[Drift] = []
        self.count = 0

    def differ(
        self, book: str, where: str, expected: dict[str, int | str], found: dict[str, int | str]
    ) -> None:
        """Notes each name whose two figures are not the same; one that isn't there is 0."""
        for what in expected | found:
            should, does = expected.get(what, 0), found.get(what, 0)
            if should != does:
                self.note(Drift(book, where, what, should, does))

    def note(self, drift: Drift) -> None:
        self.count += 1
        if len(self.shown) < MOST_SHOWN:
            self.shown.append(drift)
