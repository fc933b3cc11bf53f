"""`writer.started`: what a writer's chain begins with."""

from __future__ import annotations

import os
import socket

import msgspec
from sqlalchemy import Connection, select

from llm_proxy.records.audit_tables import checkpoints
from llm_proxy.records.evidence import Draft, RecordKind
from llm_proxy.records.tables import records
from llm_proxy.version import VERSION


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A row of `records`, and its hash (hex)."""

    writer: str
    seq: int
    hash: str


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `writer.started`. `checkpoint` is the newest that it found, None where there was none."""

    checkpoint: Place | None
    host: str
    pid: int
    version: str


_encode = msgspec.json.Encoder().encode
read_started = msgspec.json.Decoder(Started).decode


def last_checkpoint(connection: Connection) -> Place | None:
    """The newest checkpoint; None where there is none."""
    newest = select(checkpoints.c.writer, checkpoints.c.seq).order_by(checkpoints.c.at_us.desc()).limit(1)
    found = connection.execute(newest).first()
    if found is None:
        return None
    here = (records.c.writer == found.writer) & (records.c.seq == found.seq)
    hash_ = connection.execute(select(records.c.hash).where(here)).scalar()
    return Place(found.writer, found.seq, bytes(hash_).hex() if hash_ is not None else "")


def started_draft(connection: Connection, now_us: int) -> Draft:
    """The first record of a writer that begins now."""
    body = Started(
        checkpoint=last_checkpoint(connection), host=socket.gethostname(), pid=os.getpid(), version=VERSION
    )
    return Draft(RecordKind.WRITER_STARTED, now_us, None, None, None, _encode(body))
