"""What waits to be exported, what never can be whole, and what is to be sent again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, and_, func, select, tuple_

from llm_proxy.archive.told import COLUMNS, ENDINGS, TOLD, Record
from llm_proxy.records.tables import calls, dead_letters, leases, records, writers
from llm_proxy.telemetry.items import Backlog

LEASE = "otlp"
AT_ONCE = 100


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A span that the backend would not take whole. `id` is a call's, or `run:` and a digest."""

    id: str
    agent_id: str
    run_id: str
    at_us: int
    reason: str
    writer: str
    seq: int


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent again; every condition that is named must hold."""

    run: str | None = None
    agent: str | None = None
    since_us: int | None = None
    dead_letters: bool = False


def backlog(connection: Connection) -> Backlog:
    """Counted in records, by the writers' heads: counting calls would read every row that waits."""
    behind = writers.c.head_seq > writers.c.exported_seq
    unsent = func.sum(writers.c.head_seq - writers.c.exported_seq)
    count = connection.execute(select(unsent).where(behind)).scalar()
    next_up = and_(records.c.writer == writers.c.writer, records.c.seq == writers.c.exported_seq + 1)
    first = select(func.min(records.c.at_us)).select_from(writers.join(records, next_up)).where(behind)
    return Backlog(count=int(count or 0), oldest_us=connection.execute(first).scalar())


def exporter(connection: Connection, now_us: int) -> str:
    """The writer whose process exports; empty where none does."""
    held = select(leases.c.holder).where(leases.c.name == LEASE, leases.c.until_us > now_us)
    return connection.execute(held).scalar() or ""


def count_letters(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(dead_letters)).scalar_one()


def letters(connection: Connection, limit: int) -> list[Letter]:
    """The newest first."""
    d = dead_letters.c
    query = select(dead_letters).order_by(d.at_us.desc(), d.call_id).limit(limit)
    return [
        Letter(
            id=row.call_id,
            agent_id=row.agent_id,
            run_id=row.run_id,
            at_us=row.at_us,
            reason=row.reason,
            writer=row.writer,
            seq=row.seq,
        )
        for row in connection.execute(query)
    ]


def forget_letter(connection: Connection, id_: str) -> None:
    """Its span was taken whole after all."""
    connection.execute(dead_letters.delete().where(dead_letters.c.call_id == id_))


def chosen_records(connection: Connection, chosen: Chosen) -> Iterator[list[Record]]:
    """What spans tell of what was chosen, some at a time: calls by their age, then what befell runs."""
    if chosen.dead_letters:
        yield from _of_letters(connection, chosen)
        return
    c = calls.c
    where = _matching(chosen, c.run_id, c.agent_id, c.started_us)
    after = ""
    while True:
        page = select(c.id).where(c.id > after, *where).order_by(c.id).limit(AT_ONCE)
        ids = list(connection.execute(page).scalars())
        if not ids:
            break
        after = ids[-1]
        yield _ends(connection, ids)
    r = records.c
    lone = _matching(chosen, r.run_id, r.agent_id, r.at_us)
    query = select(*COLUMNS).where(r.call_id.is_(None), r.kind.in_(TOLD), *lone)
    yield from _paged(connection, query)


def _matching(
    chosen: Chosen, run: ColumnElement[str], agent: ColumnElement[str], at: ColumnElement[int]
) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    if chosen.run is not None:
        where.append(run == chosen.run)
    if chosen.agent is not None:
        where.append(agent == chosen.agent)
    if chosen.since_us is not None:
        where.append(at >= chosen.since_us)
    return where


def _ends(connection: Connection, ids: list[str]) -> list[Record]:
    query = select(*COLUMNS).where(records.c.call_id.in_(ids), records.c.kind.in_(ENDINGS))
    return [Record(*row) for row in connection.execute(query.order_by(records.c.call_id))]


def _of_letters(connection: Connection, chosen: Chosen) -> Iterator[list[Record]]:
    d, r = dead_letters.c, records.c
    where = _matching(chosen, d.run_id, d.agent_id, d.at_us)
    # Letters of an earlier version name no place: a call's id is all that they say.
    named = list(connection.execute(select(d.writer, d.seq).where(d.writer != "", *where)))
    old = list(connection.execute(select(d.call_id).where(d.writer == "", *where)).scalars())
    for start in range(0, len(named), AT_ONCE):
        places = [(row.writer, row.seq) for row in named[start : start + AT_ONCE]]
        query = select(*COLUMNS).where(tuple_(r.writer, r.seq).in_(places)).order_by(r.writer, r.seq)
        yield [Record(*row) for row in connection.execute(query)]
    for start in range(0, len(old), AT_ONCE):
        yield _ends(connection, old[start : start + AT_ONCE])


def _paged(connection: Connection, query: Select[Any]) -> Iterator[list[Record]]:
    r = records.c
    after: tuple[str, int] = ("", 0)
    while True:
        page = query.where(tuple_(r.writer, r.seq) > after).order_by(r.writer, r.seq).limit(AT_ONCE)
        rows = [Record(*row) for row in connection.execute(page)]
        if not rows:
            return
        yield rows
        after = (rows[-1].writer, rows[-1].seq)
