"""What is new in a request: each message addressed by its hash, read and counted once, then remembered."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import msgspec

from llm_proxy.records.blobs import Addresser
from llm_proxy.records.evidence import BlobDraft
from llm_proxy.upstream.tokens import IMAGE, PER_MESSAGE, PER_REPLY, TokenCounter
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.request import WireRequest

_REMEMBERED = 20_000
_APART = 512
"""Bytes from which a top-level value (tools, a schema) is stored apart from the envelope, by its hash."""


class Memo(NamedTuple):
    """What is remembered of one message. `tokens` is None until someone needed it."""

    results: tuple[str, ...]
    tokens: int | None


class Hole(NamedTuple):
    """A slice of the body, `start` to `end`, that is stored as the blob `id`."""

    start: int
    end: int
    id: bytes


class Intake(msgspec.Struct, frozen=True):
    """A request taken apart: what is stored apart, and what isn't stored yet."""

    holes: tuple[Hole, ...]
    new: tuple[BlobDraft, ...]
    messages: tuple[bytes, ...]
    """Address of each message, in order."""
    results: tuple[str, ...]
    """Ids of the tool calls whose results stand in the request, each once."""
    tokens: int | None
    """Prompt tokens, where they were counted."""
    whole: bytes | None = None
    """Address of the whole body, where it is no JSON object and so is not taken apart."""


class Cut(NamedTuple):
    """A request taken apart: a hole for each message, and for each other value stored apart, by its key."""

    messages: list[Hole]
    apart: list[tuple[str, Hole]]

    def holes(self) -> list[Hole]:
        """All of them, in the body's order."""
        return sorted([*self.messages, *(hole for _, hole in self.apart)], key=lambda hole: hole.start)


def cut(request: WireRequest, dialect: Dialect, addresser: Addresser, new: list[BlobDraft]) -> Cut:
    """Cuts out messages, large values and what is declared; adds drafts of them to `new`."""
    draft = addresser.draft
    messages = [
        Hole(start, end, draft(raw, new))
        for raw, (start, end) in zip(request.messages, request.message_spans, strict=True)
    ]
    apart = [
        (key, Hole(start, end, draft(request.body[start:end], new)))
        for key, (start, end) in request.spans.items()
        if key != request.messages_key and (end - start >= _APART or key in dialect.declared)
    ]
    return Cut(messages, apart)


class Reader:
    """Takes requests apart. Owns the memory of messages; used from the event loop only."""

    def __init__(self, addresser: Addresser, counter: TokenCounter) -> None:
        self._addresser = addresser
        self._counter = counter
        self._memos: OrderedDict[bytes, Memo] = OrderedDict()
        self._counted: OrderedDict[bytes, int] = OrderedDict()

    async def read(self, request: WireRequest, dialect: Dialect, *, count: bool) -> Intake:
        """Addresses every message and large value of `request`; with `count`, counts its tokens."""
        if count:
            await self._counter.ready()
        new: list[BlobDraft] = []
        if request.body and not request.spans:
            whole = self._addresser.draft(request.body, new)
            return Intake((), tuple(new), (), (), 0, whole)
        taken = cut(request, dialect, self._addresser, new)
        results: dict[str, None] = {}
        tokens = PER_REPLY
        for raw, hole in zip(request.messages, taken.messages, strict=True):
            memo = self._memos.get(hole.id)
            if memo is None or (count and memo.tokens is None):
                memo = await self._read(hole.id, raw, dialect, count=count)
            else:
                self._memos.move_to_end(hole.id)
            tokens += memo.tokens or 0
            for result in memo.results:
                results[result] = None
        if count:
            for key, hole in taken.apart:
                if key in dialect.declared:
                    tokens += await self._count(hole, request.body)
        addresses = tuple([hole.id for hole in taken.messages])
        return Intake(tuple(taken.holes()), tuple(new), addresses, tuple(results), tokens if count else None)

    async def _count(self, hole: Hole, body: bytes) -> int:
        known = self._counted.get(hole.id)
        if known is None:
            known = await self._counter.count((body[hole.start : hole.end].decode(),))
            self._counted[hole.id] = known
            if len(self._counted) > _REMEMBERED:
                self._counted.popitem(last=False)
        return known

    async def _read(self, id_: bytes, message: bytes, dialect: Dialect, *, count: bool) -> Memo:
        facts = dialect.message_facts(message)
        tokens = None
        if count:
            tokens = await self._counter.count(facts.texts) + PER_MESSAGE + IMAGE * len(facts.images)
        memo = self._memos[id_] = Memo(tuple([result.id for result in facts.results]), tokens)
        if len(self._memos) > _REMEMBERED:
            self._memos.popitem(last=False)
        return memo
