"""Legal holds as operators see, place and release them, by `/admin` and by the command line."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from llm_proxy.admin.errors import Conflict, Unclear
from llm_proxy.admin.reading import find_run
from llm_proxy.admin.shown import maybe_iso
from llm_proxy.records.audit_rows import LegalHoldRow
from llm_proxy.records.audit_tables import purged
from llm_proxy.records.batch import Job
from llm_proxy.records.blobs import epoch_of
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import calls
from llm_proxy.records.times import iso
from llm_proxy.retention import holding
from llm_proxy.retention.days import day_of

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
