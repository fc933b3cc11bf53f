"""Which conversation a request goes on with, where it names no run: hashes of all that was said so far.

A conversation is a chain of digests under a secret key: of each message that isn't the model's, and of each
of the model's turns by what survives the way through an agent: its calls (ids and arguments), or else its
words. Reasoning, ids of items, marks for caches and blanks don't count, since agents drop and move them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from llm_proxy.records.prefixes import End
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.retelling import Called, plain_arguments, unblanked

MOST_ENDS = 8
"""Turns of a history, the newest first, that may be the reply which its conversation goes on from: others
come of few-shot examples, of prefills and of what an agent made up."""
_REMEMBERED = 20_000
_LARGE = 256 << 10
"""Bytes of a message above which it is taken as it stands."""
_SYSTEM = ("system", "developer")
_SYSTEM_KEYS = ("system", "instructions")
_TEXTS = ("text", "input_text", "output_text")
_OTHERS = ("_output", "_response", "_reference")
"""How the types of items end that come from the agent's side, of those that have no role."""
_DROPPED = frozenset({"cache_control", "status", "id"})
_sorted = msgspec.json.Encoder(order="deterministic").encode
_any = msgspec.json.Decoder().decode


class _Said(NamedTuple):
    """What one message comes to. A turn of the model has `text` or `calls`, or neither; others a `digest`."""

    digest: bytes = b""
    text: bytes = b""
    calls: tuple[bytes, ...] = ()
    turn: bytes = b""
    """Of the turn, where the message is all of it."""
    system: bool = False


_SILENT = _Said()


class Thread(NamedTuple):
    """A request's conversation."""

    opening: bytes
    """Digest of whose it is."""
    system: bytes
    """Of the instructions that it is under. They may change, but tell conversations apart."""
    told: tuple[bytes, ...]
    """Digest of each message and turn in order, up to the turn that stands last."""
    last: tuple[tuple[_Said, bytes], ...]
    """The model's turn that the request ends with, if it does, with its messages' own bytes."""
    ends: tuple[bytes, ...]
    """Hashes of the conversation up to each of the newest turns, the newest first."""


class Threads:
    """Reads requests. Remembers messages by dialect and address; used from the event loop only."""

    def __init__(self, secret: bytes) -> None:
        self._key = hashlib.blake2b(b"stitching", key=secret, digest_size=32).digest()
        self._known: OrderedDict[tuple[str, bytes], _Said] = OrderedDict()

    def of(
        self, dialect: Dialect, request: WireRequest, addresses: Sequence[bytes], whose: tuple[str, ...]
    ) -> Thread | None:
        """The conversation of `request`, whose messages are known by `addresses`; None where it has none.

        `whose` tells apart what must not be joined whatever was said.
        """
        if dialect.onwards is None or not request.messages:
            return None
        said = [
            self._message(dialect, raw, address)
            for raw, address in zip(request.messages, addresses, strict=True)
        ]
        first = next((n for n, one in enumerate(said) if not one.system), len(said))
        system = self._system(request, [one.digest for one in said[:first]])
        opening = self._parts(whose)
        told: list[bytes] = []
        last: list[tuple[_Said, bytes]] = []
        ends: list[int] = []
        for one, raw in zip(said[first:], request.messages[first:], strict=True):
            if not one.digest:
                last.append((one, raw))
                continue
            if turn := self._turn(dialect, last):
                told += [turn] if told else [self._instructed(system), turn]
                ends.append(len(told))
            last = []
            told.append(one.digest)
        thread = Thread(opening, system, tuple(told), tuple(last), ())
        newest = self._newest(thread, ends[-MOST_ENDS:])
        if turn := self._turn(dialect, last):
            newest.insert(0, self._end(thread, turn))
        return thread._replace(ends=tuple(newest[:MOST_ENDS]))

    def end(self, dialect: Dialect, thread: Thread, text: str, calls: Sequence[Called]) -> bytes | None:
        """The hash of the conversation once this was replied; None where that says nothing."""
        said = _Said(text=self._words(text), calls=tuple(map(self._call, calls)))
        if said == _SILENT:
            return None
        before = [text for text in (self._text(dialect, raw) for _, raw in thread.last) if text]
        if said.text and before and not said.calls:  # it goes on where a prefill, or a pause, left it
            said = said._replace(text=self._words("".join([*before, text])))
        calls_before = [call for one, _ in thread.last for call in one.calls]
        return self._end(thread, self._turned(said.text, (*calls_before, *said.calls)))

    def named(self, whose: tuple[str, ...], name: str) -> bytes:
        """The hash of a conversation that its vendor keeps under `name`."""
        return self._parts((*whose, "conversation", name))

    def _end(self, thread: Thread, turn: bytes) -> bytes:
        told = thread.told or [self._instructed(thread.system)]
        return self._hash(b"".join([thread.opening, *told, turn]))

    def _newest(self, thread: Thread, ends: Sequence[int]) -> list[bytes]:
        """Of the conversation up to each of `ends`, the last of them first."""
        found: list[bytes] = []
        digest = hashlib.blake2b(thread.opening, digest_size=32, key=self._key)
        before = 0
        for end in ends:
            digest.update(b"".join(thread.told[before:end]))
            found.append(digest.copy().digest())
            before = end
        return found[::-1]

    def _instructed(self, system: bytes) -> bytes:
        """Where the model speaks first, its instructions are all that was said to it."""
        return self._hash(b"s" + system)

    def _message(self, dialect: Dialect, raw: bytes, address: bytes) -> _Said:
        key = dialect.name, address
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        known = self._known[key] = self._read(dialect, raw)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known

    def _read(self, dialect: Dialect, raw: bytes) -> _Said:
        assert dialect.onwards is not None
        turns = dialect.onwards.history.turns([raw])
        if turns:
            (turn,) = turns
            text, calls = self._words(turn.text), tuple(map(self._call, turn.calls))
            return _Said(text=text, calls=calls, turn=self._turned(text, calls) if text or calls else b"")
        if len(raw) > _LARGE:
            return _Said(self._hash(raw))
        try:
            read = _any(raw)
            if isinstance(read, str):  # the whole input, in Responses
                read = {"role": "user", "content": read}
            if not isinstance(read, dict):
                return _Said(self._hash(raw))
            message: dict[str, Any] = read  # pyright: ignore[reportUnknownVariableType]
            if _is_models(message):
                return _SILENT
            return _Said(self._hash(_plain(message)), system=message.get("role") in _SYSTEM)
        except (*CANNOT_READ, ValueError):
            return _Said(self._hash(raw))

    def _system(self, request: WireRequest, messages: Iterable[bytes]) -> bytes:
        spans = [request.spans[key] for key in _SYSTEM_KEYS if key in request.spans]
        tops = [self._hash(request.body[start:end]) for start, end in spans]
        return self._hash(b"".join([*tops, *messages]))[:16] if tops or messages else b""

    def _turn(self, dialect: Dialect, messages: Sequence[tuple[_Said, bytes]]) -> bytes | None:
        """The model's messages in a row as one turn; None where they say nothing."""
        if not messages:
            return None
        if len(messages) == 1:
            return messages[0][0].turn or None
        calls = tuple([call for one, _ in messages for call in one.calls])
        texts = [one.text for one, _ in messages if one.text]
        if not (calls or texts):
            return None
        text = texts[0] if len(texts) == 1 else b""
        if not (calls or text):
            text = self._words("".join([self._text(dialect, raw) for _, raw in messages]))
        return self._turned(text, calls)

    def _turned(self, text: bytes, calls: Sequence[bytes]) -> bytes:
        return self._hash(b"c" + b"".join(calls) if calls else b"t" + text)

    def _text(self, dialect: Dialect, raw: bytes) -> str:
        assert dialect.onwards is not None
        return "".join([turn.text for turn in dialect.onwards.history.turns([raw])])

    def _words(self, text: str) -> bytes:
        """Of words, blanks and what was thought between tags left out; empty for none."""
        words = unblanked(text)
        _, tag, answer = words.partition("</think>")
        words = answer if tag and answer else words
        return self._hash(words.encode("utf-8", "surrogatepass")) if words else b""

    def _call(self, call: Called) -> bytes:
        return self._hash(_sized(call.id.encode("utf-8", "surrogatepass")) + plain_arguments(call.arguments))

    def _parts(self, parts: Sequence[str]) -> bytes:
        return self._hash(b"".join([_sized(part.encode("utf-8", "replace")) for part in parts]))

    def _hash(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, digest_size=32, key=self._key).digest()


def _sized(part: bytes) -> bytes:
    return len(part).to_bytes(4) + part


def _is_models(message: dict[str, Any]) -> bool:
    """Whether a message without a role is what the model, or its vendor, did meanwhile."""
    kind = message.get("type")
    return "role" not in message and isinstance(kind, str) and not kind.endswith(_OTHERS)


def _plain(message: dict[str, Any]) -> bytes:
    """A message however an agent writes it."""
    kept = {key: _block(value) for key, value in message.items() if key not in _DROPPED}
    if kept.get("type") == "message":
        del kept["type"]
    if kept.get("type") == "item_reference":
        kept["id"] = message.get("id")
    return _sorted(kept)


def _block(value: Any) -> Any:
    """Content: a text and a block of that text alone are the same."""
    if isinstance(value, list):
        blocks: list[Any] = [_block(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
        return blocks[0] if len(blocks) == 1 and isinstance(blocks[0], str) else blocks
    if isinstance(value, dict):
        found: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        if found.get("type") in _TEXTS and isinstance(found.get("text"), str):
            return found["text"]
        return {key: _block(one) for key, one in found.items() if key != "cache_control"}
    return value


def gone_on_from(hashes: Sequence[bytes], found: Sequence[End], system: bytes) -> End | None:
    """The end, of those that were `found`, that a request with these `Thread.ends` goes on from.

    Behind an end which isn't its newest turn it's a branch, or the agent made up what follows: only where
    nothing else ended so.
    """
    for n, hash_ in enumerate(hashes):
        ends = [end for end in found if end.hash == hash_]
        if ends:
            return chosen(ends, system) if n == 0 else _only(ends)
    return None


def chosen(found: Sequence[End], system: bytes) -> End | None:
    """The end that a request goes on from, of those that it may; None where nobody can tell.

    `found`: ends of one hash, one at least. The same words may end several conversations (the same questions,
    a model that always says the same), so each end is gone on from once: the newest that nobody went on from
    yet. Where all were gone on from, it's a retry or a branch: of the only one, or of the newest where the
    others were over before that was reached. Ends under other instructions count where none is under the
    same, and no more than one of them can be meant.
    """
    fitting = [end for end in found if end.system == system] or list(found)
    if only := _only(fitting):
        return only
    waiting = [end for end in fitting if end.newest == end.call_id]
    if waiting and fitting[0].system == system:
        return max(waiting, key=lambda end: end.call_id)
    if waiting:
        return waiting[0] if len(waiting) == 1 else None
    newest = max(fitting, key=lambda end: end.call_id)
    others = [end.newest for end in fitting if end.run_id != newest.run_id]
    return newest if max(others) < newest.call_id else None


def _only(ends: Sequence[End]) -> End | None:
    """The newest, where all are of one run."""
    one = len({end.run_id for end in ends}) == 1
    return max(ends, key=lambda end: end.call_id) if one else None
