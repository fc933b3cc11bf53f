"""Content, each piece stored once a day: addressed by a salted hash, compressed with zstd.

The address is keyed BLAKE2b, cut to 128 bits, under the salt of the day (UTC) on which the content was first
stored: whoever doesn't know the salt can't make two contents meet. What proves content is the digest of its
row, which isn't cut (see `stored.py`). Earlier versions had addresses of 256 bits.
Retention deletes a day's content together with its salt; after that the hashes in the evidence say
nothing about what they covered, and the chain still verifies.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple

import zstandard
from sqlalchemy import Connection, select

from llm_proxy.records.dictionary import CONTENT_1
from llm_proxy.records.evidence import BlobDraft
from llm_proxy.records.large import LARGE
from llm_proxy.records.prepared import select_in, upsert
from llm_proxy.records.tables import salts

DAY_US = 86_400_000_000
ADDRESS = 16
"""Bytes of an address."""
KEPT = 2**31 - 1
"""The `epoch` of a salt of no day, never deleted: it makes the keys of redaction's tokens and hashes."""
_SAMPLE = 1 << 18
_WORTH = 0.6
_SMALL = 64
"""Bytes under which compression costs more than it saves."""
CODEC = "zstd-1"
"""zstd with the first dictionary; `zstd`, without one, is what earlier versions wrote."""


def epoch_of(at_us: int) -> int:
    """Day number since 1970-01-01 UTC."""
    return at_us // DAY_US


def keyed(content: bytes, salt: bytes) -> bytes:
    """The salted hash of content, 32 bytes, of which addresses are made."""
    return hashlib.blake2b(content, digest_size=32, key=salt).digest()


def ensure_salt(connection: Connection, epoch: int) -> bytes:
    """The salt of `epoch`, made by whoever comes first."""
    query = select(salts.c.salt).where(salts.c.epoch == epoch)
    salt = connection.execute(query).scalar()
    if salt is None:
        made = upsert(salts, connection.dialect).values(epoch=epoch, salt=os.urandom(32))
        connection.execute(made.on_conflict_do_nothing())
        salt = connection.execute(query).scalar_one()
    return bytes(salt)


class Addressed(NamedTuple):
    """Addresses of messages in order, on the day `epoch`."""

    epoch: int
    ids: tuple[bytes, ...]


class Addresser:
    """Gives content its address, and says which content the store is already known to hold.

    Used from one thread (the event loop's). What is remembered is bounded; forgetting only costs an
    insert that finds its row there.
    """

    def __init__(self, epoch: int, salt: bytes, remember: int = 50_000) -> None:
        self.epoch = epoch
        self._salt = salt
        self._remember = remember
        self._stored: OrderedDict[bytes, bool] = OrderedDict()

    def roll(self, epoch: int, salt: bytes) -> None:
        """Begins a new day."""
        self.epoch = epoch
        self._salt = salt
        self._stored.clear()

    def address(self, content: bytes) -> bytes:
        return keyed(content, self._salt)[:ADDRESS]

    def addressed(self, contents: Iterable[bytes]) -> Addressed:
        return Addressed(self.epoch, tuple([self.address(content) for content in contents]))

    def draft(self, content: bytes, into: list[BlobDraft], id_: bytes | None = None) -> bytes:
        """The content's address, `id_` where that is known; adds a draft to `into` where the store may not
        hold it yet."""
        id_ = id_ or self.address(content)
        if id_ in self._stored:
            self._stored.move_to_end(id_)
        else:
            into.append(BlobDraft(id_, self.epoch, content))
        return id_

    def is_masked(self, id_: bytes) -> bool:
        """Whether what is stored under `id_` is known to be masked."""
        return self._stored.get(id_, False)

    def fresh(self, content: bytes, at_us: int, into: list[BlobDraft], masked: bytes | None = None) -> bytes:
        """The address of content that is stored anew each time, such as a reply.

        What is stored is `masked`, where that is given. The address begins with the time, so that the index
        grows at one end; the rest is the salted hash.
        """
        id_ = (at_us // 1000).to_bytes(6, "big") + keyed(content, self._salt)[: ADDRESS - 6]
        into.append(BlobDraft(id_, self.epoch, content if masked is None else masked, masked is not None))
        return id_

    def committed(self, drafts: list[BlobDraft]) -> None:
        """Remembers what a commit stored. Called only after it."""
        for draft in drafts:
            if draft.epoch == self.epoch:
                self._stored[draft.id] = draft.masked
        while len(self._stored) > self._remember:
            self._stored.popitem(last=False)


class Codec:
    """zstd, level 1, with a dictionary: on texts of a few KB the higher ones save little. One per thread."""

    def __init__(self) -> None:
        self._pack = zstandard.ZstdCompressor(level=1, dict_data=CONTENT_1)
        self._unpack = {
            "zstd": zstandard.ZstdDecompressor(),
            CODEC: zstandard.ZstdDecompressor(dict_data=CONTENT_1),
        }

    def pack(self, contents: list[bytes]) -> list[tuple[str, bytes]]:
        """For each of `contents` the codec's name and the stored bytes.

        All of them are compressed in one call, which gives up the interpreter lock once.
        """
        worth = [self._is_worth_it(content) for content in contents]
        chosen: list[Any] = [content for content, pack in zip(contents, worth, strict=True) if pack]
        packed = iter(self._pack.multi_compress_to_buffer(chosen) if chosen else ())
        return [
            _smaller(next(packed), content) if pack else ("raw", content)
            for content, pack in zip(contents, worth, strict=True)
        ]

    def _is_worth_it(self, content: bytes) -> bool:
        """Large content of which a sample hardly shrinks (base64, media) would only be held a second time."""
        if len(content) < LARGE:
            return len(content) >= _SMALL
        middle = len(content) // 2
        sample = content[middle : middle + _SAMPLE]
        return len(self._pack.compress(sample)) < len(sample) * _WORTH

    def unpack(self, codec: str, data: bytes, size: int) -> bytes:
        """Raises ValueError for a codec that there isn't, and `zstandard.ZstdError`."""
        if codec == "raw":
            return data
        if codec not in self._unpack:
            raise ValueError(f"content is packed by {codec!r}, which this version can't read")
        return self._unpack[codec].decompress(data, max_output_size=size)


_of_threads = threading.local()


def thread_codec() -> Codec:
    """The calling thread's: one with its dictionary takes longer to make than a call's content to unpack."""
    try:
        return _of_threads.codec
    except AttributeError:
        _of_threads.codec = Codec()
        return _of_threads.codec


def _smaller(packed: Any, content: bytes) -> tuple[str, Any]:
    """The compressed bytes where they are fewer; of large content without a copy."""
    if len(packed) >= len(content):
        return "raw", content
    return CODEC, packed.tobytes() if len(content) < LARGE else memoryview(packed)


def fetch(connection: Connection, ids: Iterable[bytes]) -> dict[bytes, bytes]:
    """The contents of those `ids` that the store still holds."""
    codec = thread_codec()
    found: dict[bytes, bytes] = {}
    wanted = list(ids)
    for start in range(0, len(wanted), 500):
        rows = select_in(connection, "id, codec, data, size", "blobs", "id", wanted[start : start + 500])
        for id_, name, data, size in rows:
            found[bytes(id_)] = codec.unpack(name, bytes(data), size)
    return found
