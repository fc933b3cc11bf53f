"""An upstream that answers every call with a text and a usage of its own, and fails three times in ten.

It keeps its own books, as a vendor does. A reply that came whole is charged as its usage says. Where it fails
after it has read the prompt (a cut, a broken reply, silence) it charges the prompt, which is the least that
`routing.failures.Charge` says of these. An error status, or a connection that was never made, is free.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from itertools import cycle

from tests.raw_upstream import Answer, RawUpstream, events, whole

PROMPT = 10
"""Tokens of "call NNN" with all that is around it; a micro-dollar each."""
SILENT_S = 600.0
OF_A_HUNDRED = {
    "server_error": 5,
    "unavailable": 5,
    "rate_limited": 7,
    "cut": 7,
    "malformed": 6,
}
"""What goes wrong, and how often."""
SILENT = 2
"""How many of the first cuts are silences in their place: each of them takes long."""
RECORDED = {"unavailable": "server_error"}
"""As what it's recorded, where that isn't its own name."""
WORKED = {"cut", "malformed", "first_event_timeout"}


def text_of(number: int) -> str:
    return f"answer to {number}"


@dataclass
class Books:
    """What one target was asked, how it failed, and what it charges: micro-dollars and tokens."""

    asked: int = 0
    failed: Counter[str] = field(default_factory=Counter[str])
    micro_usd: int = 0
    tokens: int = 0

    def charge(self, tokens_in: int, tokens_out: int) -> None:
        self.micro_usd += tokens_in + 2 * tokens_out
        self.tokens += tokens_in + tokens_out


class Injecting:
    """One target. With a `seed` it fails as `OF_A_HUNDRED` says, in an order that the seed decides."""

    def __init__(self, seed: str | None) -> None:
        self.books = Books()
        self._raw = RawUpstream(self._answer)
        self._fates = cycle([""]) if seed is None else _fates(seed)
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._raw.serve, "127.0.0.1", self.port, reuse_port=True)

    def refuse(self) -> None:
        """From now on no connection is made. Call it when none is open."""
        assert self._server is not None
        self._server.close()

    def _answer(self, body: bytes) -> Answer:
        asked = json.loads(body)
        number, stream = int(asked["messages"][0]["content"].split()[-1]), bool(asked.get("stream"))
        fate, books = next(self._fates), self.books
        books.asked += 1
        if not fate:
            used = 20 + number % 7, 1 + number % 5
            books.charge(*used)
            return _reply(number, used, stream)
        books.failed[RECORDED.get(fate, fate)] += 1
        if fate in WORKED:
            books.charge(PROMPT, 0)
        return _failure(fate, stream)


def _fates(seed: str) -> Iterator[str]:
    """A fault's name, or nothing, for each request."""
    deck = [fault for fault, times in OF_A_HUNDRED.items() for _ in range(times)]
    deck += [""] * (100 - len(deck))
    chance = random.Random(seed)
    silences = SILENT
    while True:
        chance.shuffle(deck)
        for fate in deck:
            silent = fate == "cut" and silences > 0
            silences -= silent
            yield "first_event_timeout" if silent else fate


def _data(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _delta(finish: str | None = None, **delta: str) -> bytes:
    return _data({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


ROLE = _delta(role="assistant", content="")


def _reply(number: int, used: tuple[int, int], stream: bool) -> Answer:
    usage = {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)}
    text = text_of(number)
    if not stream:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return whole(json.dumps({"choices": [choice], "usage": usage}).encode())
    words = [_delta(content=word) for word in text.partition(" ")]
    return events(ROLE, *words, _delta("stop"), _data({"choices": [], "usage": usage}), b"data: [DONE]\n\n")


def _failure(fate: str, stream: bool) -> Answer:
    error = b'{"error": {"message": "No.", "type": null, "code": null}}'
    match fate:
        case "server_error":
            return whole(error, "500 No")
        case "unavailable":
            return whole(error, "503 No")
        case "rate_limited":
            return whole(error, "429 No")
        case "malformed":
            return events(ROLE, b'data: {"choi\n\n') if stream else whole(b'{"choices": [')
        case "cut":
            return events(ROLE)[:-1] if stream else []
        case _:
            return [SILENT_S]


@contextlib.asynccontextmanager
async def injecting(seed: str | None) -> AsyncGenerator[Injecting]:
    """Listens until the block ends. Its port stays its own while it refuses connections."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        target = Injecting(seed)
        target.port = held.getsockname()[1]
        await target.listen()
        try:
            yield target
        finally:
            target.refuse()
