"""News for an open page, as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import structlog
from fastapi import Response
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.admin.streamed import Streamed
from llm_proxy.console.security import HEADERS
from llm_proxy.console.visit import Refused
from llm_proxy.http.guarded import GuardedProtocol

log = structlog.get_logger("llm_proxy.console")

EVERY_S = 1.0
AGAIN, LATER = b"retry: 1000\n", b"retry: 10000\n\n"
"""How soon (ms) a page asks anew where an answer has ended, and where the store can't be read."""
CHECK_EVERY = 10
"""Looks after which the session is looked up again."""
LOOKS = 30
"""After so many the answer ends, and the page asks anew: a server that stops needn't wait for it for long."""
MOST_OPEN = 32
"""Pages that hear news at once, by worker; each costs a look at the store a second."""


Look = Callable[[], Awaitable[str]]


def event(name: str, data: str) -> bytes:
    """One event; line ends in `data` are kept."""
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"event: {name}\n{lines}\n".encode()


def events(stream: AsyncGenerator[bytes]) -> Response:
    return Streamed(stream, HEADERS | {"x-accel-buffering": "no"}, "text/event-stream")


class Watching:
    """Tells open pages whenever what `look` returns is another than before, and when it begins to look:
    whatever changed until then, the page fetches."""

    def __init__(self) -> None:
        self._open = 0

    def changes(
        self, look: Callable[[], Awaitable[str]], signed_in: Callable[[], Awaitable[bool]]
    ) -> Response:
        """Raises `Refused` where too many listen already."""
        if self._open >= MOST_OPEN:
            raise Refused(503, "Too many pages are open", "Close some; this one can be loaded anew by hand.")
        return events(self._told(look, signed_in))

    async def _told(self, look: Look, signed_in: Callable[[], Awaitable[bool]]) -> AsyncGenerator[bytes]:
        self._open += 1
        try:
            before = await look()
            yield AGAIN + event("changed", "")
            for looks in range(1, LOOKS):
                await asyncio.sleep(EVERY_S)
                if GuardedProtocol.stopping:
                    return
                if looks % CHECK_EVERY == 0:
                    if not await signed_in():
                        return
                    yield b": still here\n\n"
                now = await look()
                if now != before:
                    before = now
                    yield event("changed", "")
        except SQLAlchemyError as error:
            log.error("the store can't be read", error=type(error).__name__)
            yield LATER
        finally:
            self._open -= 1
