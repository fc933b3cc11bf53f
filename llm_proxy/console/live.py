"""News for an open page, as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from fastapi import Response
from fastapi.responses import StreamingResponse

from llm_proxy.console.security import HEADERS
from llm_proxy.console.visit import Refused

EVERY_S = 1.0
CHECK_EVERY = 10
"""Looks after which the session is looked up again."""
MOST_OPEN = 32
"""Pages that hear news at once, by worker; each costs a look at the store a second."""


Look = Callable[[], Awaitable[str]]


def event(name: str, data: str) -> bytes:
    """One event; line ends in `data` are kept."""
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"event: {name}\n{lines}\n".encode()


def events(stream: AsyncGenerator[bytes]) -> Response:
    return StreamingResponse(
        stream, headers=HEADERS | {"x-accel-buffering": "no"}, media_type="text/event-stream"
    )


class Watching:
    """Tells open pages whenever what `look` returns is another than before."""

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
            before, looks = await look(), 0
            yield b": listening\n\n"
            while True:
                await asyncio.sleep(EVERY_S)
                looks += 1
                if looks % CHECK_EVERY == 0:
                    if not await signed_in():
                        return
                    yield b": still here\n\n"
                now = await look()
                if now != before:
                    before = now
                    yield event("changed", "")
        finally:
            self._open -= 1
