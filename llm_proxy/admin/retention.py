"""Retention and legal holds as operators see and change them, by `/admin` and by the command line."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from llm_proxy.admin.errors import Conflict, Unclear
from llm_proxy.admin.reading import find_run
from llm_proxy.admin.shown import maybe_iso
from llm_proxy.config import Config
from llm_proxy.records.audit_rows import LegalHoldRow, PurgedRow
from llm_proxy.records.audit_tables import purged
from llm_proxy.records.batch import Job
from llm_proxy.records.blobs import epoch_of
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import calls
from llm_proxy.records.times import iso
from llm_proxy.retention import holding
from llm_proxy.retention.days import day_of, due_at
from llm_proxy.retention.keeper import DayDone
from llm_proxy.retention.status import DueDay, status

MAX_REASON = 1_000


class HoldWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a run's content is to stay, or may go again; `agent` where several used the run's id."""

    reason: str
    agent: str | None = None


class HoldLine(msgspec.Struct, frozen=True, kw_only=True):
    """A legal hold: the content of the run, and of runs below it, stays while it stands."""

    run_id: str
    agent_id: str
    by: str
    reason: str
    placed_at: str
    placed_us: int
    released_at: str | None
    released_us: int | None


class HoldShown(HoldLine, frozen=True, kw_only=True):
    """What came of placing or releasing one."""

    changed: bool
    """False where it stood so already."""
    days_deleted: tuple[str, ...]
    """Days of the run's calls whose content was deleted before."""


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


# Legal holds


def hold_lines(connection: Connection, limit: int, *, released: bool) -> list[HoldLine]:
    """Those that stand, the last placed first; with `released` the others too."""
    return [HoldLine(**_line(row)) for row in holding.list_holds(connection, limit, released=released)]


def meant(connection: Connection, run_id: str, wish: HoldWish) -> RunKey:
    """The run that is meant. Raises `NotFound`, or `Unclear`."""
    reason = wish.reason.strip()
    if not reason or len(reason) > MAX_REASON or not reason.isprintable():
        raise Unclear(f"reason: say it in 1 to {MAX_REASON} characters, all of which print.")
    return find_run(connection, run_id, wish.agent).stored.key


def placing(key: RunKey, wish: HoldWish, now_us: int, *, by: str, via: str) -> Job:
    return holding.place(key, now_us, reason=wish.reason.strip(), by=by, via=via)


def releasing(key: RunKey, wish: HoldWish, now_us: int, *, by: str, via: str) -> Job:
    return holding.release(key, now_us, reason=wish.reason.strip(), by=by, via=via)


def hold_shown(connection: Connection, key: RunKey, outcome: tuple[LegalHoldRow | None, bool]) -> HoldShown:
    """`outcome` is the job's value. Raises `Conflict` where nothing was ever held."""
    row, changed = outcome
    if row is None:
        raise Conflict(f"Run {key.run_id!r} of agent {key.agent_id!r} is under no legal hold.")
    return HoldShown(changed=changed, days_deleted=_days_deleted(connection, key), **_line(row))


def _days_deleted(connection: Connection, key: RunKey) -> tuple[str, ...]:
    c = calls.c
    query = select(func.min(c.started_us), func.max(c.started_us))
    first, last = connection.execute(query.where(c.run_id == key.run_id, c.agent_id == key.agent_id)).one()
    if first is None:
        return ()
    days = purged.c.epoch.between(epoch_of(first), epoch_of(last))
    found = connection.execute(select(purged.c.epoch).where(days).order_by(purged.c.epoch)).scalars()
    return tuple(map(day_of, found))


def _line(row: LegalHoldRow) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "agent_id": row.agent_id,
        "by": row.by,
        "reason": row.reason,
        "placed_at": iso(row.placed_us),
        "placed_us": row.placed_us,
        "released_at": maybe_iso(row.released_us),
        "released_us": row.released_us,
    }
