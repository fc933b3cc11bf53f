"""An answer that is sent as it is made, for as long as its reader takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping

import structlog
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

log = structlog.get_logger("llm_proxy.admin")

STALLED_S = 120.0
"""How long nothing may be taken of an answer, before it's broken off. What buffers of the network hold is
taken in one go, so that a slow reader seems to do nothing for a while."""


class Stalled(Exception):
    """Its reader took nothing for too long: the connection is closed, so that it can't pass for whole."""

    planned = True


class Streamed(StreamingResponse):
    """What `made` yields, which is closed however the answer ends: by then it has let go of all it holds.

    A plain generator is run in a thread, for each of its pieces.
    """

    def __init__(
        self,
        made: AsyncGenerator[bytes] | Generator[bytes],
        headers: Mapping[str, str],
        media_type: str,
        stalled_s: float = STALLED_S,
    ) -> None:
        super().__init__(made, 200, headers, media_type)
        self._made = made
        self._stalled_s = stalled_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def patient(message: Message) -> None:
            sending = asyncio.timeout(self._stalled_s)
            try:
                async with sending:
                    await send(message)
            except TimeoutError:
                if not sending.expired():
                    raise
                log.warning("an answer was broken off: nobody reads it", path=scope["path"][:200])
                raise Stalled from None

        try:
            await super().__call__(scope, receive, patient)
        finally:
            if isinstance(self._made, AsyncGenerator):
                await self._made.aclose()
            else:
                await asyncio.to_thread(self._made.close)
