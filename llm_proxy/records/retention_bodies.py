"""The JSON bodies of what is recorded of retention: `content.deleted`, `records.exported` before it, and
`legal_hold.placed` and `.released`."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Stage(StrEnum):
    """A day's deletion is on record before the first of it goes, and again when all of it is gone."""

    BEGUN = "begun"
    DONE = "done"


class Deleted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`content.deleted`: the content of one day, but for what legal holds keep."""

    epoch: int
    """The day, since 1970 (UTC)."""
    day: str
    """The same as YYYY-MM-DD."""
    stage: Stage
    by: str
    """`retention`, or who asked for it to run."""
    retention_days: int
    held_runs: int = 0
    """Runs under a legal hold, those below them included."""
    blobs: int = 0
    """Pieces of content that were deleted, all turns of the day together."""
    bytes: int = 0
    """Of them, before compression."""
    kept: int = 0
    """Pieces that stay for legal holds, and with them the day's salt."""
    file: str = ""
    """Where the day's calls were exported to before."""


class DayExported(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`records.exported` by retention: the calls of a day, with their content, before that is deleted."""

    by: str
    what: str
    epoch: int
    day: str
    file: str
    sha256: str
    """Of the file's bytes."""
    bytes: int
    calls: int
    content: bool = True


class HoldPlaced(msgspec.Struct, frozen=True, kw_only=True):
    """`legal_hold.placed`; run and agent are those of the record."""

    by: str
    via: str
    reason: str


class HoldReleased(msgspec.Struct, frozen=True, kw_only=True):
    """`legal_hold.released`. `placed_us`: since when it stood."""

    by: str
    via: str
    reason: str
    placed_us: int


encode = msgspec.json.Encoder().encode
read_deleted = msgspec.json.Decoder(Deleted).decode
