"""Which days' content is due to be deleted. A day is UTC's; content is stored once a day, under its salt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from llm_proxy.records.audit_rows import PurgedRow
from llm_proxy.records.audit_tables import purged
from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.tables import blobs, salts

SLACK_US = 3_600_000_000
"""A call that begins just after midnight may still be stored under the day before."""
_NOTED = [purged.c[name] for name in PurgedRow._fields]


class Due(NamedTuple):
    """A day to be worked on. `noted` is what was of it before; `stored`: there is content of it."""

    epoch: int
    noted: PurgedRow | None
    stored: bool


def first_kept(now_us: int, days: int) -> int:
    """The first day (since 1970, UTC) of which something is younger than `days` days."""
    return (now_us - SLACK_US) // DAY_US - days


def due_at(epoch: int, days: int) -> int:
    """When the day's content is deleted, Unix µs."""
    return (epoch + 1 + days) * DAY_US + SLACK_US


def day_of(epoch: int) -> str:
    """YYYY-MM-DD."""
    return (date(1970, 1, 1) + timedelta(days=epoch)).isoformat()


def due(connection: Connection, before: int, released_us: int) -> list[Due]:
    """Days before `before` of which something is to be deleted, the oldest first.

    One that only has what legal holds kept comes again once a hold was released, at `released_us` the last.
    """
    noted = {row[0]: PurgedRow(*row) for row in connection.execute(select(*_NOTED))}
    stored = set(_stored(connection, before))
    found: list[Due] = []
    for epoch in sorted(stored.union(_salted(connection, before))):
        row = noted.get(epoch)
        if row is None or row.ended_us is None or not row.kept or row.at_us <= released_us:
            found.append(Due(epoch, row, epoch in stored))
    return found


def _stored(connection: Connection, before: int) -> Iterator[int]:
    """Days that have content, each found by one step in the index."""
    at = -1
    while True:
        query = select(func.min(blobs.c.epoch)).where(blobs.c.epoch > at, blobs.c.epoch < before)
        found = connection.execute(query).scalar()
        if found is None:
            return
        yield found
        at = found


def _salted(connection: Connection, before: int) -> Iterator[int]:
    yield from connection.execute(select(salts.c.epoch).where(salts.c.epoch < before)).scalars()
