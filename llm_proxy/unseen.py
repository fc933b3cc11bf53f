"""What an agent never saw of its own history: calls that were denied, and what the model was told of them.

It's kept by the reply that the agent has instead. Where that reply comes back in a request of the run, the
model is sent its turn as it made it: the calls in their places, with their results, and no note.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from llm_proxy.chat.prompt import CallPart, Message, Prompt, ResultPart, Role, TextPart, ThoughtPart
from llm_proxy.errors import ProxyError
from llm_proxy.records.runstate import RunKey
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.retelling import Cut, Put, Turn

log = structlog.get_logger("llm_proxy.unseen")

LONGEST = 256 << 10
"""Bytes of what is kept of one reply; of a longer one the note stays as it is."""
MOST = 64
"""Replies of one run of which something is kept."""
_RUNS = 1_000


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


def key_of(text: str, calls: Sequence[str]) -> str:
    """By what a reply is known when it comes back: its calls' ids, or else its words, blanks left out."""
    named = "\0".join(calls) if calls else "".join(text.split())
    return hashlib.sha256((b"c" if calls else b"t") + named.encode("utf-8", "surrogatepass")).hexdigest()


Load = Callable[[RunKey], Mapping[str, bytes]]
"""Reads the rows of a run; it blocks."""


class UnseenTurns:
    """One per worker: the newest runs' rows, by key. Used from the event loop only."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._runs: OrderedDict[RunKey, dict[str, Unseen | None]] = OrderedDict()

    async def of(self, run: RunKey, keys: Sequence[str]) -> dict[str, Unseen]:
        """What is kept of the replies of these keys. The store is read once for a key, whatever it says.

        A row is committed before its reply ends, so that no history can be ahead of it.
        """
        known = self._runs.setdefault(run, {})
        self._runs.move_to_end(run)
        if len(self._runs) > _RUNS:
            self._runs.popitem(last=False)
        if any(key not in known for key in keys):
            rows = await asyncio.to_thread(self._load, run)
            known.update({key: _decode(rows[key]) if key in rows else None for key in keys})
        return {key: unseen for key in keys if (unseen := known.get(key)) is not None}


async def retold(dialect: Dialect, request: WireRequest, turns_of: UnseenTurns, run: RunKey) -> WireRequest:
    """The request with what the agent never saw of it; the same object where there is nothing.

    What can't be read is left as it is.
    """
    history = dialect.onwards.history if dialect.onwards else None
    if history is None or not request.message_spans:
        return request
    turns = history.turns(request.messages)
    keys = {turn.start: key_of(turn.text, turn.calls) for turn in turns}
    found = await turns_of.of(run, [*dict.fromkeys(keys.values())])
    missing = [turn for turn in turns if keys[turn.start] in found]
    if not missing:
        return request
    try:
        return _retold(dialect, request, [(turn, found[keys[turn.start]]) for turn in missing])
    except (*CANNOT_READ, ProxyError, ValueError, KeyError, IndexError):
        log.warning("what an agent never saw could not be put back", run_id=run.run_id, exc_info=True)
        return request


def _retold(dialect: Dialect, request: WireRequest, missing: Sequence[tuple[Turn, Unseen]]) -> WireRequest:
    assert dialect.onwards is not None
    messages: list[list[bytes]] = [[bytes(raw)] for raw in request.messages]
    for turn, unseen in missing:
        after = messages[turn.end] if turn.end < len(messages) else []
        following = after[0] if len(after) == 1 else None
        put = _put(dialect, request.model, unseen)
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
    return dialect.parse(body[:first] + every + body[last:])


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
