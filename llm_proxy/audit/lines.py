"""The lines of an export: JSON, one object a line, under one name that says what it is.

The first is `header`, the last `end`, which signs the bytes of all before it. Between them, of each writer:
`writer`, its `record`s in order, and `omitted` for those that the filter left out; then `salt`, `purged` and
`blob`.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from llm_proxy.audit.findings import RecordRow

FORMAT = 1
END = b"llm-proxy export 1\n"
"""What the signature of the end begins with, before the SHA-256 of all lines above it."""


class Filter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which records are in it. What proves them (the starts of chains, checkpoints) is always there."""

    since_us: int | None = None
    until_us: int | None = None
    agent: str | None = None
    run: str | None = None
    checkpoints: bool = False
    """Nothing but checkpoints."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    version: str
    """Of the proxy that wrote it."""
    at_us: int
    at: str
    by: str
    filter: Filter
    whole: bool
    """Every record of the store is in it."""
    content: bool
    keys: tuple[dict[str, str], ...]
    """JWKs of the signing key; who checks it should have them from elsewhere."""


class WriterLine(msgspec.Struct, frozen=True):
    id: str
    head_seq: int
    head_hash: str


class RecordLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """All columns. `body` is the JSON text that was hashed; `body_base64` where it isn't UTF-8."""

    writer: str
    seq: int
    kind: str
    at_us: int
    call_id: str | None
    run_id: str | None
    agent_id: str | None
    hash: str
    body: str | None = None
    body_base64: str | None = None

    def row(self) -> tuple[Any, ...]:
        """As it stands in `records`. Raises ValueError."""
        body = self.body.encode() if self.body is not None else base64.b64decode(self.body_base64 or "")
        names = (self.writer, self.seq, self.kind, self.at_us, self.call_id, self.run_id, self.agent_id)
        return (*names, body, bytes.fromhex(self.hash))


class OmittedLine(msgspec.Struct, frozen=True):
    """Records `first` to `last` are not in it; `hash` is that of the last."""

    writer: str
    first: int
    last: int
    hash: str


class SaltLine(msgspec.Struct, frozen=True):
    epoch: int
    salt: str


class BlobLine(msgspec.Struct, frozen=True):
    """A row of `blobs`; `data` is base64 of what is stored, as `codec` packs it."""

    id: str
    epoch: int
    codec: str
    size: int
    data: str

    def row(self) -> tuple[Any, ...]:
        return bytes.fromhex(self.id), self.epoch, self.codec, self.size, base64.b64decode(self.data)


class End(msgspec.Struct, frozen=True, kw_only=True):
    lines: int
    records: int
    blobs: int
    sha256: str
    """Of all bytes above this line, hex."""
    problems: int
    """What was wrong with the chains as they were read; such an export isn't signed."""
    key: str = ""
    signature: str = ""
    """Ed25519 over `END` and the 32 bytes of the SHA-256, base64url; empty where there was no key."""


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of these."""

    header: Header | None = None
    writer: WriterLine | None = None
    record: RecordLine | None = None
    omitted: OmittedLine | None = None
    salt: SaltLine | None = None
    purged: int | None = None
    blob: BlobLine | None = None
    end: End | None = None


_encode = msgspec.json.Encoder().encode
read_line = msgspec.json.Decoder(Line).decode


def line(**what: Any) -> bytes:
    return _encode(Line(**what)) + b"\n"


def record_line(row: RecordRow) -> bytes:
    """Raises TypeError or ValueError for a row that somebody changed so that it can't be written."""
    try:
        body, raw = bytes(row.body).decode(), None
    except UnicodeDecodeError:
        body, raw = None, base64.b64encode(row.body).decode()
    return line(record=RecordLine(*row[:7], row.hash.hex(), body, raw))


def blob_line(row: tuple[Any, ...]) -> bytes:
    id_, epoch, codec, size, data = row
    return line(blob=BlobLine(bytes(id_).hex(), epoch, codec, size, base64.b64encode(data).decode()))
