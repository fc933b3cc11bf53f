"""What is new in a request: each message addressed by its hash, read and counted once, then remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from llm_proxy.counting.prompt import (
    PromptCounter,
    Tally,
    around,
    bounded,
    converses,
    exact,
    reads_more,
    runs_tools,
    stored,
)
from llm_proxy.counting.text import TokenCounter
from llm_proxy.counting.tokenizers import ANY, Tokenizer
from llm_proxy.records.blobs import Addressed, Addresser
from llm_proxy.records.evidence import BlobDraft
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.request import MessageFacts, WireRequest

_REMEMBERED = 20_000
_APART = 512
"""Bytes from which a top-level value (tools, a schema) is stored apart from the envelope, by its hash."""

_CHOICES = frozenset(
    {"model", "stream_options", "tool_choice", "service_tier", "reasoning_effort", "reasoning", "thinking"}
    | {"encoding_format", "modalities", "truncation", "verbosity", "previous_response_id"}
)
"""Keys whose values are words of the API, not somebody's: where small, they stay in the envelope."""

_NAMED = 20
"""Items at the vendor that are named in the record, each once."""

Reads = Callable[[bytes], MessageFacts]


class Memo(NamedTuple):
    """What is remembered of one message or declaration. `tokens` holds what someone needed so far."""

    results: tuple[str, ...]
    exact: bool
    """All of it is text, so that no count of it is a bound, and it brings nothing more."""
    bounded: int
    """Tokens of what is only a bound, pictures apart."""
    tokens: Tally
    reference: str = ""
    """The id of an item that its vendor keeps, in whose place it stands."""


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
    """Prompt tokens, where they were counted: the most that any target of the route may count."""
    whole: bytes | None = None
    """Address of the whole body, where it is no JSON object and so is not taken apart."""
    counted: Mapping[Tokenizer, int] = {}
    """Prompt tokens, by each target's way to count them."""
    bounded: int = 0
    """How many of them are only a bound, by any way: files, sound, what stands at the vendor."""
    exact: bool = False
    """They were counted, and none of it is only a bound."""
    masked: bool = False
    """Something of it is stored already, and masked there."""
    kept: tuple[str, ...] = ()
    """What of the conversation stands at the vendor: ids of items, and `conversation`."""

    def counted_by(self, way: Tokenizer) -> int | None:
        """The prompt's tokens as one target counts; by any other way the most."""
        return self.counted.get(way, self.tokens)


class Cut(NamedTuple):
    """A request taken apart: a hole for each message, and for each other value stored apart, by its key."""

    messages: list[Hole]
    apart: list[tuple[str, Hole]]

    def holes(self) -> list[Hole]:
        """All of them, in the body's order."""
        return sorted([*self.messages, *(hole for _, hole in self.apart)], key=lambda hole: hole.start)


def cut(
    request: WireRequest,
    dialect: Dialect,
    addresser: Addresser,
    new: list[BlobDraft],
    addressed: Addressed | None = None,
) -> Cut:
    """Cuts out all that somebody may have written, and large values; adds drafts of them to `new`.

    The envelope that is left stands in the record for good: it holds numbers, switches and the API's words.
    """
    draft = addresser.draft
    known = addressed is not None and addressed.epoch == addresser.epoch
    ids = addressed.ids if addressed and known else [None] * len(request.messages)
    messages = [
        Hole(start, end, draft(raw, new, id_))
        for raw, (start, end), id_ in zip(request.messages, request.message_spans, ids, strict=True)
    ]
    apart = [
        (key, Hole(start, end, draft(request.body[start:end], new)))
        for key, (start, end) in request.spans.items()
        if key != request.messages_key and _is_apart(key, request.body, start, end, dialect)
    ]
    return Cut(messages, apart)


def _is_apart(key: str, body: bytes, start: int, end: int, dialect: Dialect) -> bool:
    if end - start >= _APART or key in dialect.declared:
        return True
    return key not in _CHOICES and body[start] in _OPENS


_OPENS = frozenset(b'"{[')
"""What a text, an object and a list begin with."""


class Reader:
    """Takes requests apart. Owns the memory of messages; used from the event loop only."""

    def __init__(self, addresser: Addresser, counter: TokenCounter) -> None:
        self._addresser = addresser
        self._counter = PromptCounter(counter)
        self._texts = counter
        self._memos: OrderedDict[tuple[Reads, bytes], Memo] = OrderedDict()
        """By who read it, too: what is a tool's result in one dialect is none in another."""
        self._declared: OrderedDict[tuple[str, bytes], Memo] = OrderedDict()

    async def read(
        self,
        request: WireRequest,
        dialect: Dialect,
        *,
        count: bool,
        ways: Iterable[Tokenizer] = (ANY,),
        addressed: Addressed | None = None,
    ) -> Intake:
        """Addresses every message and large value of `request`; with `count`, counts its tokens in `ways`.

        `addressed`: its messages, where their addresses are known already.
        """
        new: list[BlobDraft] = []
        if request.body and not request.spans:
            whole = self._addresser.draft(request.body, new)
            return Intake((), tuple(new), (), (), 0, whole, masked=self._addresser.is_masked(whole))
        taken = cut(request, dialect, self._addresser, new, addressed)
        if not count:
            ways = ()
        await self._texts.ready({way.encoding for way in ways})
        guessed = stored(request, dialect) if count else 0
        counted: Tally = {way: guessed + around(request, way) for way in ways}
        results: dict[str, None] = {}
        certain = bool(counted) and not (guessed or reads_more(request))
        kept = ["conversation"] if converses(request, dialect) else []
        for memo in await self._known(request, taken, dialect, counted):
            certain = certain and memo.exact
            guessed += memo.bounded
            for way in counted:
                counted[way] += memo.tokens[way]
            if memo.reference:
                kept.append(memo.reference)
            for result in memo.results:
                results[result] = None
        return Intake(
            tuple(taken.holes()),
            tuple(new),
            tuple([hole.id for hole in taken.messages]),
            tuple(results),
            max(counted.values(), default=None),
            counted=counted,
            bounded=guessed if counted else 0,
            exact=certain,
            masked=any(self._addresser.is_masked(hole.id) for hole in taken.holes()),
            kept=tuple(dict.fromkeys(kept))[:_NAMED],
        )

    async def count(self, text: str, ways: Iterable[Tokenizer]) -> int:
        """Tokens of a text, by the one of `ways` that counts the most."""
        return max((await self._counter.texts((text,), ways)).values(), default=0)

    async def _known(self, request: WireRequest, taken: Cut, dialect: Dialect, ways: Tally) -> list[Memo]:
        """What is known of every message, and of what is declared where `ways` ask for a count."""
        found: list[Memo] = []
        for raw, hole in zip(request.messages, taken.messages, strict=True):
            key = dialect.message_facts, hole.id
            memo = self._memos.get(key)
            if memo is None or (ways and not ways.keys() <= memo.tokens.keys()):
                memo = await self._read(hole.id, raw, dialect, ways)
            else:
                self._memos.move_to_end(key)
            found.append(memo)
        for key, hole in taken.apart if ways else ():
            if key in dialect.declared:
                found.append(await self._declare(key, hole, request.body, ways))
        return found

    async def _read(self, id_: bytes, raw: bytes, dialect: Dialect, ways: Iterable[Tokenizer]) -> Memo:
        """Reads a message that is new, or that was not counted in every one of `ways`."""
        facts = dialect.message_facts(raw)
        tokens = await self._counter.message(facts, ways)
        key = dialect.message_facts, id_
        known = self._memos.get(key)
        if known is not None:
            known.tokens.update(tokens)
            return known
        ids = tuple([result.id for result in facts.results])
        memo = self._memos[key] = Memo(ids, exact(facts), bounded(facts), tokens, facts.reference)
        if len(self._memos) > _REMEMBERED:
            self._memos.popitem(last=False)
        return memo

    async def _declare(self, key: str, hole: Hole, body: bytes, ways: Iterable[Tokenizer]) -> Memo:
        known = self._declared.get((key, hole.id))
        if known is None:
            certain = key != "tools" or not runs_tools(body[hole.start : hole.end])
            known = self._declared[key, hole.id] = Memo((), certain, 0, {})
            if len(self._declared) > _REMEMBERED:
                self._declared.popitem(last=False)
        else:
            self._declared.move_to_end((key, hole.id))
        missing = [way for way in ways if way not in known.tokens]
        if missing:
            text = body[hole.start : hole.end].decode()
            known.tokens.update(await self._counter.texts((text,), missing))
        return known
