"""Who was shown content, the newest first."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, select, tuple_

from llm_proxy.records.content_reads import ContentRead, read_content_read
from llm_proxy.records.kinds import RecordKind
from llm_proxy.records.tables import records
from llm_proxy.records.times import iso

_READ = RecordKind.CONTENT_READ.value


class ReadingLine(msgspec.Struct, frozen=True, kw_only=True):
    """One showing of prompts, replies, reasoning or arguments: a `content.read`."""

    id: str
    """`WRITER/SEQ`."""
    at_us: int
    at: str
    by: str
    """An operator's id, `admin_token`, or `command line (OS user NAME)`; empty in a damaged record."""
    place: str
    """admin, cli, console or link; empty in a damaged record."""
    what: str
    """What was asked for, as the command has it."""
    run_id: str | None
    """Where all that was shown is of one run."""
    agent_id: str | None
    calls: tuple[str, ...] = ()
    """The first of the calls that were shown."""
    call_count: int = 0
    words: str = ""
    approval: str = ""


def reading_lines(connection: Connection, limit: int, before: str | None = None) -> list[ReadingLine]:
    """Those before the one with the id `before`. Raises ValueError where there is no such one."""
    c = records.c
    query = select(c.writer, c.seq, c.at_us, c.run_id, c.agent_id, c.body).where(c.kind == _READ)
    if before is not None:
        at_us, writer, seq = _place(connection, before)
        # The time alone as well: it's what the index is of.
        query = query.where(c.at_us <= at_us, tuple_(c.at_us, c.writer, c.seq) < (at_us, writer, seq))
    query = query.order_by(c.at_us.desc(), c.writer.desc(), c.seq.desc()).limit(limit)
    return [_line(row) for row in connection.execute(query)]


def _place(connection: Connection, id_: str) -> tuple[int, str, int]:
    writer, _, seq = id_.rpartition("/")
    c = records.c
    found = None
    if seq.isascii() and seq.isdigit() and len(seq) < 19:
        where = c.writer == writer, c.seq == int(seq), c.kind == _READ
        found = connection.execute(select(c.at_us).where(*where)).scalar()
    if found is None:
        raise ValueError(f"{id_[:80]!r} is no reading: take the id of a line that was listed")
    return found, writer, int(seq)


def _line(row: Any) -> ReadingLine:
    told: ContentRead | None
    try:
        told = read_content_read(bytes(row.body))
    except (msgspec.DecodeError, UnicodeDecodeError):
        told = None
    return ReadingLine(
        id=f"{row.writer}/{row.seq}",
        at_us=row.at_us,
        at=iso(row.at_us),
        by=told.by if told else "",
        place=told.place.value if told else "",
        what=told.what if told else "(damaged: `llm-proxy audit verify` says how)",
        run_id=row.run_id,
        agent_id=row.agent_id,
        calls=told.calls if told else (),
        call_count=told.call_count if told else 0,
        words=told.words if told else "",
        approval=told.approval if told else "",
    )
