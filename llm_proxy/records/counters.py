"""The policy's counters: how much of a cap by day, or of a sum, is used, read under a lock."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection


class CounterKey(NamedTuple):
    """One counter of `tables.counts`."""

    cap: str
    """`day.calls`, `day.writes`, or `sum:` and the sum's id."""
    subject: str
    """Whose: see `subject_of`."""
    day: int
    """The caller's budget day, since 1970; 0 where it's counted over a whole run."""


def load_counters(connection: Connection, keys: set[CounterKey]) -> dict[CounterKey, int]:
    """What each has used; nobody else can add to them before the transaction ends.

    Each is begun where it isn't there yet, since only a row can be locked. In order of their keys, so that no
    two writers wait for each other crosswise.
    """
    found = dict.fromkeys(keys, 0)
    if not keys:
        return found
    postgresql = connection.dialect.name == "postgresql"
    mark, lock = ("%s", " FOR UPDATE") if postgresql else ("?", "")
    begin = (
        f"INSERT INTO state_counts (cap, subject, day, used) VALUES ({mark}, {mark}, {mark}, 0) "  # noqa: S608
        "ON CONFLICT DO NOTHING"
    )
    read = f"SELECT used FROM state_counts WHERE cap = {mark} AND subject = {mark} AND day = {mark}{lock}"  # noqa: S608
    for key in sorted(keys):
        if postgresql:
            connection.exec_driver_sql(begin, tuple(key))
        used = connection.exec_driver_sql(read, tuple(key)).scalar()
        found[key] = used or 0
    return found


def subject_of(*names: str) -> str:
    """Whose counter it is, as one text: parts are joined by what no part can hold."""
    return "\x1f".join(names)
