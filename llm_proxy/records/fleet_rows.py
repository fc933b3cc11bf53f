"""What processes tell each other of the targets, as rows of the store. Everything here blocks on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Engine, and_, or_, select

from llm_proxy.records.prepared import upsert
from llm_proxy.records.tables import breakers, targets

DAY_US = 86_400_000_000

Version = tuple[int, str]
"""When a breaker's row was written, and by whom: no two writings of a row have the same."""


@dataclass(frozen=True, slots=True)
class BreakerRow:
    """One breaker as someone left it; `until_us` is None where it was closed. `kind` may be empty."""

    key: str
    until_us: int | None
    kind: str
    changed_us: int
    writer: str

    @property
    def version(self) -> Version:
        return self.changed_us, self.writer


@dataclass(frozen=True, slots=True)
class BreakerDraft:
    """A row to be written. A closing follows on the version `after`, and is dropped where that has gone."""

    row: BreakerRow
    after: Version | None = None


@dataclass(frozen=True, slots=True)
class TargetRow:
    """What one process sent to one target; see the table."""

    key: str
    writer: str
    at_us: int
    in_flight: int
    requests: int
    tokens: int
    attempts: int
    failures: int
    last_failure: str
    last_failure_us: int
    whole_us: int
    streamed_us: int


@dataclass(frozen=True, slots=True)
class Report:
    """What of another process's row counts for this one."""

    key: str
    at_us: int
    in_flight: int
    requests: int
    tokens: int


def read(engine: Engine, me: str, since_us: int) -> tuple[list[BreakerRow], list[Report]]:
    """Every breaker, and what other processes than `me` wrote of their targets after `since_us`."""
    shown = (targets.c.key, targets.c.at_us, targets.c.in_flight, targets.c.requests, targets.c.tokens)
    recent = select(*shown).where(targets.c.at_us > since_us, targets.c.writer != me)
    with engine.connect() as connection:
        states = [BreakerRow(*row) for row in connection.execute(select(breakers))]
        return states, [Report(*row) for row in connection.execute(recent)]


def write(engine: Engine, drafts: Sequence[BreakerDraft], reports: Sequence[TargetRow]) -> dict[str, Version]:
    """One transaction; returns the versions of the breakers that it changed, by their keys.

    An opening doesn't change a row that is open for longer, nor a closing one that was written since or is
    closed already.
    """
    # In order of key, so that no two processes wait for each other's rows.
    ordered = sorted(drafts, key=lambda draft: draft.row.key)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        wrote = {d.row.key: d.row.version for d in ordered if _write_breaker(connection, d)}
        if reports:
            _write_targets(connection, reports)
    return wrote


def forget(engine: Engine, now_us: int) -> None:
    """Deletes what nobody wrote to for a day: rows of processes that ended, breakers that are long over."""
    before = now_us - DAY_US
    over = or_(breakers.c.until_us.is_(None), breakers.c.until_us < before)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(targets.delete().where(targets.c.at_us < before))
        connection.execute(breakers.delete().where(and_(breakers.c.changed_us < before, over)))


def _write_breaker(connection: Connection, draft: BreakerDraft) -> bool:
    row = draft.row
    if row.until_us is not None:
        return _open(connection, row)
    if draft.after is None:
        return False
    changed_us, writer = draft.after
    same = and_(breakers.c.key == row.key, breakers.c.changed_us == changed_us, breakers.c.writer == writer)
    still_open = and_(same, breakers.c.until_us.is_not(None))
    return connection.execute(breakers.update().where(still_open).values(asdict(row))).rowcount == 1


def _open(connection: Connection, row: BreakerRow) -> bool:
    insert = upsert(breakers, connection.dialect)
    new = insert.excluded
    shorter = or_(breakers.c.until_us.is_(None), breakers.c.until_us < new.until_us)
    wanted = {"until_us": new.until_us, "kind": new.kind, "changed_us": new.changed_us, "writer": new.writer}
    statement = insert.on_conflict_do_update(index_elements=["key"], set_=wanted, where=shorter)
    return connection.execute(statement, asdict(row)).rowcount == 1


def _write_targets(connection: Connection, reports: Sequence[TargetRow]) -> None:
    insert = upsert(targets, connection.dialect)
    wanted = {c.name: insert.excluded[c.name] for c in targets.c if not c.primary_key}
    statement = insert.on_conflict_do_update(index_elements=["key", "writer"], set_=wanted)
    connection.execute(statement, [asdict(report) for report in reports])
