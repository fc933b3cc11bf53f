"""Where each chain stood at a checkpoint: for verifying what came after it alone."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy import Connection, select

from llm_proxy.audit.checkpoint import Checkpoint, problem_of, read_checkpoint
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.started import Place
from llm_proxy.records.tables import records


class NoCheckpoint(Exception):
    """There is no such checkpoint, or it isn't to be trusted; the message says why."""


def starts_at(connection: Connection, name: str, keys: Mapping[str, bytes]) -> dict[str, Place]:
    """The heads that the checkpoint `WRITER/SEQ` covers, by itself and by those before it.

    Raises `NoCheckpoint`, also for one whose signature is wrong.
    """
    writer, _, number = name.partition("/")
    place: Place | None = Place(writer, int(number) if number.isdecimal() and len(number) < 19 else 0, "")
    found: dict[str, Place] = {}
    while place is not None:
        told = _read(connection, place, keys)
        for head in told.heads:
            found.setdefault(head.writer, head)
        place = told.previous
    return found


def _read(connection: Connection, place: Place, keys: Mapping[str, bytes]) -> Checkpoint:
    name = f"{place.writer[:36]}/{place.seq}"
    here = (records.c.writer == place.writer) & (records.c.seq == place.seq)
    row = connection.execute(select(records.c.kind, records.c.body).where(here)).first()
    if row is None or row.kind != RecordKind.CHECKPOINT:
        raise NoCheckpoint(f"There is no checkpoint {name}: `llm-proxy audit checkpoints` lists them.")
    try:
        told = read_checkpoint(bytes(row.body))
    except msgspec.DecodeError:
        raise NoCheckpoint(f"Checkpoint {name} can't be read: verify without --since.") from None
    if problem := problem_of(told, keys):
        raise NoCheckpoint(f"Checkpoint {name}: {problem}. Verify without --since.")
    return told
