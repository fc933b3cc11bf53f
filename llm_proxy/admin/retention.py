"""Retention as operators see it, and what its turns did."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from llm_proxy.admin.errors import Conflict
from llm_proxy.admin.shown import maybe_iso
from llm_proxy.config import Config
from llm_proxy.records.audit_rows import PurgedRow
from llm_proxy.records.times import iso
from llm_proxy.retention.days import day_of, due_at
from llm_proxy.retention.keeper import DayDone
from llm_proxy.retention.status import DueDay, status


class DueLine(msgspec.Struct, frozen=True, kw_only=True):
    """A day (UTC) whose content goes in the next turn."""

    day: str
    blobs: int
    """Pieces of content that go, and their bytes before compression."""
    bytes: int
    kept: int
    """Pieces that stay for legal holds."""


class DeletedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A day whose content was deleted, or is being deleted (`ended_us` is null)."""

    day: str
    blobs: int
    bytes: int
    kept: int
    began_at: str
    began_us: int
    ended_at: str | None
    ended_us: int | None


class RetentionShown(msgspec.Struct, frozen=True, kw_only=True):
    """How long content is kept, what is due, and what went. Days are UTC's."""

    content: str
    retention_days: int
    export_before_delete: str | None
    kept_from: str
    """The first day that isn't due."""
    oldest: str | None
    """The first day of which there is content."""
    next_at: str | None
    """When the oldest day's content goes; null where there is none."""
    holds: int
    held_runs: int
    """With the runs below them."""
    due: tuple[DueLine, ...]
    deleted: tuple[DeletedLine, ...]
    """The last first."""


class RetentionDone(msgspec.Struct, frozen=True, kw_only=True):
    """What a turn did, a line for each day."""

    days: tuple[DayLine, ...]


class DayLine(msgspec.Struct, frozen=True, kw_only=True):
    """`blobs` and `bytes` are of all turns of the day together."""

    day: str
    blobs: int
    bytes: int
    kept: int
    held_runs: int
    file: str
    """Where the day's calls were exported to before; empty where they were not."""


def shown(config: Config, connection: Connection, now_us: int, limit: int) -> RetentionShown:
    told = config.records
    found = status(connection, now_us, told.retention_days, limit)
    folder = told.export_before_delete
    oldest = found.oldest
    return RetentionShown(
        content=told.content.value,
        retention_days=told.retention_days,
        export_before_delete=str(folder) if folder is not None else None,
        kept_from=day_of(found.first_kept),
        oldest=None if oldest is None else day_of(oldest),
        next_at=None if oldest is None else iso(max(now_us, due_at(oldest, told.retention_days))),
        holds=found.holds,
        held_runs=found.held_runs,
        due=tuple(map(_due, found.due)),
        deleted=tuple(map(_deleted, found.deleted)),
    )


def _due(day: DueDay) -> DueLine:
    return DueLine(day=day_of(day.epoch), blobs=day.blobs, bytes=day.bytes, kept=day.kept)


def _deleted(row: PurgedRow) -> DeletedLine:
    return DeletedLine(
        day=day_of(row.epoch),
        blobs=row.blobs,
        bytes=row.bytes,
        kept=row.kept,
        began_at=iso(row.at_us),
        began_us=row.at_us,
        ended_at=maybe_iso(row.ended_us),
        ended_us=row.ended_us,
    )


def done(days: list[DayDone]) -> RetentionDone:
    return RetentionDone(
        days=tuple(
            [
                DayLine(
                    day=day_of(each.epoch),
                    blobs=each.gone.blobs,
                    bytes=each.gone.bytes,
                    kept=each.kept,
                    held_runs=each.held_runs,
                    file=each.file,
                )
                for each in days
            ]
        )
    )


def busy() -> Conflict:
    return Conflict("Another process is deleting what is due just now: `llm-proxy retention status` tells.")


def stuck(error: Exception) -> Conflict:
    return Conflict(f"Nothing more was deleted: {error}")
