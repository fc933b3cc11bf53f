"""What an agent never saw of its own history: calls that were denied, and what the model was told of them.

It's kept by the reply that the agent has instead. Where that reply comes back in a request of the run, the
model is sent its turn as it made it: the calls in their places, with their results, and no note.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from typing import NamedTuple

import msgspec
import structlog

from llm_proxy.chat.prompt import CallPart, Message, Prompt, ResultPart, Role, TextPart, ThoughtPart
from llm_proxy.errors import ProxyError
from llm_proxy.records.runstate import RunKey
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.retelling import Called, Cut, Put, Turn, plain_arguments, unblanked

log = structlog.get_logger("llm_proxy.unseen")

LONGEST = 256 << 10
"""Bytes of what is kept of one reply; of a longer one the note stays as it is."""
MOST_PUT = 1 << 20
"""Bytes of what is put back into one request; of further replies the notes stay."""
_REMEMBERED = 32 << 20
"""Bytes of rows that a worker remembers."""


class Unseen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one reply. `rounds` stand before it; `calls` are its own, by their places, with their results."""

    rounds: tuple[Message, ...] = ()
    before: int = 0
    """Characters of its text, blanks uncounted, that belong to the rounds."""
    calls: tuple[tuple[int, CallPart], ...] = ()
    results: tuple[ResultPart, ...] = ()
    note: str = ""
    """What stands in its text for the calls."""


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Unseen).decode


def key_of(text: str, calls: Sequence[Called]) -> str:
    """By what a reply is known when it comes back: its calls, or else its words, blanks left out.

    Ids alone don't tell calls apart, since some servers begin each reply with `call_0`.
    """
    if not calls:
        return hashlib.sha256(b"t" + unblanked(text).encode("utf-8", "surrogatepass")).hexdigest()
    digest = hashlib.sha256(b"c")
    for call in calls:
        for part in (call.id.encode("utf-8", "surrogatepass"), plain_arguments(call.arguments)):
            digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()


class Kept(NamedTuple):
    """A row as it's remembered, and its size in the store."""

    unseen: Unseen
    size: int


Load = Callable[[RunKey, Set[str]], Mapping[str, bytes]]
"""Reads those of these keys' rows that a run has; it blocks."""


class UnseenTurns:
    """One per worker: the rows that were last put back. Used from the event loop only."""

    def __init__(self, load: Load, most: int = _REMEMBERED) -> None:
        self._load = load
        self._most = most
        self._rows: OrderedDict[tuple[RunKey, str], Kept] = OrderedDict()
        self.size = 0
        """Bytes of what is remembered."""

    async def of(self, run: RunKey, keys: Sequence[str]) -> dict[str, Kept]:
        """What is kept of the replies of these keys. A row never changes, so it's read once.

        A row is committed before its reply ends, so that no history can be ahead of it. That there is none is
        not remembered: anyone can ask for any number of keys.
        """
        known = {key: kept for key in keys if (kept := self._rows.get((run, key)))}
        for key in known:
            self._rows.move_to_end((run, key))
        wanted = frozenset(keys) - known.keys()
        if wanted:
            read = await asyncio.to_thread(self._read, run, wanted)
            for key, kept in read.items():
                self._remember((run, key), kept)
            known |= read
        return known

    def _read(self, run: RunKey, wanted: Set[str]) -> dict[str, Kept]:
        return {key: Kept(_decode(body), len(body)) for key, body in self._load(run, wanted).items()}

    def _remember(self, key: tuple[RunKey, str], kept: Kept) -> None:
        if key in self._rows:  # another call of the run was as fast
            return
        self._rows[key] = kept
        self.size += kept.size
        while self.size > self._most:
            _, gone = self._rows.popitem(last=False)
            self.size -= gone.size


class Retold(NamedTuple):
    """A request with what its agent never saw of it, and the text that this adds to its prompt."""

    request: WireRequest
    added: str


async def retold(dialect: Dialect, request: WireRequest, turns_of: UnseenTurns, run: RunKey) -> Retold | None:
    """The request with what the agent never saw of it; None where there is nothing.

    What can't be read is left as it is.
    """
    history = dialect.onwards.history if dialect.onwards else None
    if history is None or not request.message_spans:
        return None
    turns = history.turns(request.messages)
    keys = {turn.start: key_of(turn.text, turn.calls) for turn in turns}
    found = await turns_of.of(run, [*dict.fromkeys(keys.values())])
    if not found:
        return None
    missing = _chosen(turns, keys, found)
    try:
        return _retold(dialect, request, missing)
    except (*CANNOT_READ, ProxyError, ValueError, KeyError, IndexError):
        log.warning("what an agent never saw could not be put back", run_id=run.run_id, exc_info=True)
        return None


def _chosen(
    turns: Sequence[Turn], keys: Mapping[int, str], found: Mapping[str, Kept]
) -> list[tuple[Turn, Unseen]]:
    """Each row with the one turn that it's put back into: the oldest that has its note, or else the oldest.

    The oldest first, up to `MOST_PUT`: so a history that grows keeps its beginning, and its vendor's cache.
    """
    theirs: dict[str, Turn] = {}
    noted: set[str] = set()
    for turn in turns:
        key = keys[turn.start]
        if key not in found or key in noted:
            continue
        if unblanked(found[key].unseen.note) in unblanked(turn.text):
            noted.add(key)
            theirs[key] = turn
        else:
            theirs.setdefault(key, turn)
    chosen: list[tuple[Turn, Unseen]] = []
    left = MOST_PUT
    for key, turn in sorted(theirs.items(), key=lambda item: item[1].start):
        unseen, size = found[key]
        if size <= left:
            left -= size
            chosen.append((turn, unseen))
    return chosen


def _retold(dialect: Dialect, request: WireRequest, missing: Sequence[tuple[Turn, Unseen]]) -> Retold:
    assert dialect.onwards is not None
    messages: list[list[bytes]] = [[bytes(raw)] for raw in request.messages]
    added: list[bytes] = []
    for turn, unseen in missing:
        after = messages[turn.end] if turn.end < len(messages) else []
        following = after[0] if len(after) == 1 else None
        put = _put(dialect, request.model, unseen)
        added += [*put.front, *[call for _, call in put.calls], *put.results]
        told, answered = dialect.onwards.history.retell(
            [raw for at in range(turn.start, turn.end) for raw in messages[at]],
            following,
            Cut(unseen.before, unseen.note),
            put,
        )
        for at in range(turn.start, turn.end):
            messages[at] = told if at == turn.start else []
        if answered is not None:
            messages[turn.end] = [answered]
    body, (first, last) = request.body, (request.message_spans[0][0], request.message_spans[-1][1])
    every = b",".join([raw for told in messages for raw in told])
    text = b"\n".join(added).decode("utf-8", "replace")
    return Retold(dialect.parse(body[:first] + every + body[last:]), text)


def _put(dialect: Dialect, model: str, unseen: Unseen) -> Put:
    assert dialect.onwards is not None
    front = _written(dialect, model, unseen.rounds)
    own = Message(role=Role.ASSISTANT, parts=tuple([call for _, call in unseen.calls]))
    answers = Message(role=Role.USER, parts=unseen.results)
    calls, results = dialect.onwards.history.parts(
        _written(dialect, model, (own, answers)) if unseen.calls else ()
    )
    thoughts = [part.thought for of in unseen.rounds for part in of.parts if isinstance(part, ThoughtPart)]
    return Put(
        front=front,
        calls=tuple(zip([place for place, _ in unseen.calls], calls, strict=True)),
        results=results,
        seals={seal for of in thoughts for seal in (of.signature, of.id, of.text if not of.signature else "")}
        - {""},
    )


def _written(dialect: Dialect, model: str, messages: Sequence[Message]) -> tuple[bytes, ...]:
    """Messages in the dialect's own JSON, as the request's own are."""
    if not messages:
        return ()
    assert dialect.translation is not None
    opening = Message(role=Role.USER, parts=(TextPart(text="."),))
    prompt = Prompt(model=model, messages=(opening, *messages))
    return dialect.parse(dialect.translation.write_prompt(prompt).body).messages[1:]
