"""Which breakers of other processes are taken over, and which of our own are told to them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import assert_never

from llm_proxy.records.fleet_rows import BreakerDraft, BreakerRow, Version
from llm_proxy.sharing.moment import Moment
from routing.failures import FailureKind
from routing.health import DEFAULT_BREAKER, Change, Health

OVER_US = 60_000_000
"""An opening that ended longer ago says nothing: the target is not put to the probe for it."""
_KINDS = {kind.value: kind for kind in FailureKind}


class Effect(StrEnum):
    """What a row does to the breaker here."""

    NOTHING = "nothing"
    OPENS = "opens"
    CLOSES = "closes"


def effect(row: BreakerRow, known: Version | None, untold: Change | None, now_us: int) -> Effect:
    """`known`: the version that was applied last; `untold`: what happened here and isn't in the store yet.

    Each version of a row applies once. A closing doesn't undo an opening which its writer couldn't know of.
    """
    if row.version == known:
        return Effect.NOTHING
    if row.until_us is None:
        opened_here = untold is not None and untold.until is not None
        return Effect.NOTHING if opened_here else Effect.CLOSES
    return Effect.OPENS if row.until_us > now_us - OVER_US else Effect.NOTHING


class SharedBreakers:
    """Between one process's `Health` and the rows: `hear` what was read, write the `drafts`, then `wrote`."""

    def __init__(self, health: Health, keys: frozenset[str], writer: str) -> None:
        self._health = health
        self._keys = keys
        self._writer = writer
        self._known: dict[str, Version] = {}
        self._untold: dict[str, Change] = {}

    def hear(self, rows: Iterable[BreakerRow], now: Moment) -> None:
        """Applies rows as just read; those of targets that this process doesn't have are passed over."""
        self._collect()
        for row in rows:
            if row.key in self._keys:
                self._apply(row, now)
                self._known[row.key] = row.version

    def drafts(self, now: Moment) -> tuple[BreakerDraft, ...]:
        """What the store should hear of, as of the last `hear`; empty where nothing changed here."""
        return tuple(self._draft(change, now) for change in self._untold.values())

    def wrote(self, drafts: Iterable[BreakerDraft], versions: Mapping[str, Version]) -> None:
        """The drafts were committed; `versions` are of the rows that they changed."""
        for draft in drafts:
            self._untold.pop(draft.row.key, None)
        self._known |= versions

    def _collect(self) -> None:
        for change in self._health.changes():
            if change.key in self._keys:
                self._untold[change.key] = change

    def _apply(self, row: BreakerRow, now: Moment) -> None:
        untold = self._untold.get(row.key)
        what = effect(row, self._known.get(row.key), untold, now.us)
        match what:
            case Effect.NOTHING:
                return
            case Effect.OPENS:
                assert row.until_us is not None
                until = min(now.seconds(row.until_us), now.s + DEFAULT_BREAKER.max_open_s)
                self._health.hold_open(row.key, until, _KINDS.get(row.kind))
            case Effect.CLOSES:
                self._health.closed_elsewhere(row.key)
            case _:
                assert_never(what)
        if untold is not None and untold.until is None:
            del self._untold[row.key]  # our probe was of what stood before

    def _draft(self, change: Change, now: Moment) -> BreakerDraft:
        if change.until is None:
            closed = BreakerRow(change.key, None, "", now.us, self._writer)
            return BreakerDraft(closed, self._known.get(change.key))
        kind = "" if change.kind is None else change.kind.value
        return BreakerDraft(BreakerRow(change.key, now.micros(change.until), kind, now.us, self._writer))
