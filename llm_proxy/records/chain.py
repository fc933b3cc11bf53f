"""The hash chain over the evidence: each row's hash covers the row before it and every column of its own."""

from __future__ import annotations

import hashlib

import msgspec

GENESIS = b"\0" * 32
"""What the first row of a writer's chain follows."""

_encode = msgspec.msgpack.Encoder().encode


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A row of `records`, less its hash. The field order is the order in which they are hashed."""

    writer: str
    seq: int
    kind: str
    at_us: int
    call_id: str | None
    run_id: str | None
    agent_id: str | None
    body: bytes


def link(previous: bytes, row: Row) -> bytes:
    """SHA-256 of the previous row's hash, then the MessagePack array of this row's columns."""
    return hashlib.sha256(previous + _encode(row)).digest()
