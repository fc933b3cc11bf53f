"""The checkpoints of a store, the newest first."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select

from llm_proxy.audit.checkpoint import read_checkpoint
from llm_proxy.records.audit_tables import checkpoints
from llm_proxy.records.tables import records
from llm_proxy.records.times import iso


class CheckpointLine(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint. `heads`: chains that had grown since the one before, each with its end."""

    id: str
    """`WRITER/SEQ`."""
    at_us: int
    at: str
    key: str
    hash: str
    """Of its record, hex: kept elsewhere, it proves all that came before."""
    previous: str | None
    heads: dict[str, str]
    """`WRITER/SEQ` to the hash of that record."""
    signature: str


def checkpoint_lines(connection: Connection, limit: int) -> list[CheckpointLine]:
    """Those that are noted and can be read; `verify` is what finds any that can't."""
    join = (checkpoints.c.writer == records.c.writer) & (checkpoints.c.seq == records.c.seq)
    query = (
        select(records.c.writer, records.c.seq, records.c.body, records.c.hash)
        .join(checkpoints, join)
        .order_by(checkpoints.c.at_us.desc())
        .limit(limit)
    )
    found = (_line(*row) for row in connection.execute(query).all())
    return [line for line in found if line is not None]


def _line(writer: str, seq: int, body: bytes, hash_: bytes) -> CheckpointLine | None:
    try:
        told = read_checkpoint(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    previous = told.previous
    return CheckpointLine(
        id=f"{writer}/{seq}",
        at_us=told.at_us,
        at=iso(told.at_us),
        key=told.key,
        hash=bytes(hash_).hex(),
        previous=f"{previous.writer}/{previous.seq}" if previous is not None else None,
        heads={f"{head.writer}/{head.seq}": head.hash for head in told.heads},
        signature=told.signature,
    )
