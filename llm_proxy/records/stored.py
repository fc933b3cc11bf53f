"""`content.stored`: which rows of `blobs` a transaction brought, each with a digest over all of its columns.

The address of a row says what the content was before it was masked, and says nothing of how it was packed.
The digest is what finds a changed row: keyed BLAKE2b-256 under the salt of the row's day, so that a chain
that lives for ever says nothing of content which retention deleted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from llm_proxy.records.blobs import ADDRESS
from llm_proxy.records.evidence import Draft, RecordKind

BlobRow = tuple[bytes, int, str, int, Any]
"""A row of `blobs`: id, epoch, codec, size, and data that may be bytes or a memoryview."""
SIZE = 32


class Day(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one day's rows: `named` is the base64 of their ids and digests, 16 and 32 bytes each, by turns.

    Earlier versions had ids of 32 bytes, and wrote them to `rows`.
    """

    epoch: int
    named: str = ""
    rows: str = ""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `content.stored`."""

    days: tuple[Day, ...]


_encode = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Stored).decode


def row_digest(salt: bytes, id_: bytes, epoch: int, codec: str, size: int, data: Any) -> bytes:
    """Of one row as it's stored. Raises OverflowError and ValueError for values that no row has."""
    name = codec.encode()
    head = id_ + epoch.to_bytes(8, "big", signed=True) + size.to_bytes(8, "big", signed=True)
    hashed = hashlib.blake2b(head + bytes((len(id_), len(name))) + name, digest_size=SIZE, key=salt)
    hashed.update(data)
    return hashed.digest()


def stored_draft(rows: Sequence[BlobRow], salt_of: Callable[[int], bytes], now_us: int) -> Draft:
    """The record of `rows`."""
    days: dict[int, list[bytes]] = {}
    salts = {epoch: salt_of(epoch) for epoch in {row[1] for row in rows}}
    for row in rows:
        epoch = row[1]
        days.setdefault(epoch, []).append(row[0] + row_digest(salts[epoch], *row))
    told = tuple(
        Day(epoch=epoch, named=base64.b64encode(b"".join(found)).decode()) for epoch, found in days.items()
    )
    return Draft(RecordKind.CONTENT_STORED, now_us, None, None, None, _encode(Stored(days=told)))


def named_in(body: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Epoch, id and digest of each row that a `content.stored` names. Raises ValueError for no such body."""
    try:
        days: Iterable[Day] = _read(body).days
        for day in days:
            for told, wide in ((day.named, ADDRESS), (day.rows, 32)):
                raw = base64.b64decode(told, validate=True)
                if len(raw) % (wide + SIZE):
                    raise ValueError("it ends within a row")
                for at in range(0, len(raw), wide + SIZE):
                    yield day.epoch, raw[at : at + wide], raw[at + wide : at + wide + SIZE]
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
