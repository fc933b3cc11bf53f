"""How retention stands: which days' content there is, what goes next, and what holds keep."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, func, select

from llm_proxy.records.audit_rows import PurgedRow
from llm_proxy.records.audit_tables import purged
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import blobs
from llm_proxy.retention.days import due, first_kept
from llm_proxy.retention.held import held_runs, holds, kept_addresses

_NOTED = [purged.c[name] for name in PurgedRow._fields]
_AT_ONCE = 500


class DueDay(NamedTuple):
    """A day whose content would go now: pieces and their bytes before compression, and how many are held."""

    epoch: int
    blobs: int
    bytes: int
    kept: int


class Status(NamedTuple):
    """`oldest` is the first day of which there is content; `first_kept` the first that isn't due."""

    first_kept: int
    oldest: int | None
    due: tuple[DueDay, ...]
    deleted: tuple[PurgedRow, ...]
    holds: int
    held_runs: int


def status(connection: Connection, now_us: int, days: int, limit: int) -> Status:
    """The first `limit` of the days that are due, and the last of those deleted. Raises `TooManyHeld`."""
    before, held = first_kept(now_us, days), held_runs(connection)
    standing = holds(connection)
    waiting = due(connection, before, standing.released_us)[:limit]
    query = select(*_NOTED).order_by(purged.c.epoch.desc()).limit(limit)
    return Status(
        first_kept=before,
        oldest=connection.execute(select(func.min(blobs.c.epoch))).scalar(),
        due=tuple([_due(connection, each.epoch, held) for each in waiting]),
        deleted=tuple([PurgedRow(*row) for row in connection.execute(query)]),
        holds=standing.standing,
        held_runs=len(held),
    )


def _due(connection: Connection, epoch: int, held: frozenset[RunKey]) -> DueDay:
    c = blobs.c
    query = select(func.count(), func.coalesce(func.sum(c.size), 0)).where(c.epoch == epoch)
    there, size = connection.execute(query).one()
    kept = kept_size = 0
    ids = list(kept_addresses(connection, held, epoch)) if held else []
    for start in range(0, len(ids), _AT_ONCE):
        mine = query.where(c.id.in_(ids[start : start + _AT_ONCE]))
        more, more_size = connection.execute(mine).one()
        kept, kept_size = kept + more, kept_size + int(more_size)
    return DueDay(epoch, there - kept, int(size) - kept_size, kept)
