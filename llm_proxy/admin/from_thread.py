"""Bytes that one thread makes, for an answer that is sent as they come."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio

_AHEAD = 8
_CHUNK = 65_536


class _Left(Exception):
    """Nobody reads any more."""


async def from_thread(make: Callable[[], Iterator[bytes]]) -> AsyncGenerator[bytes]:
    """What `make()` yields, in chunks. It's iterated in one thread, which ends when the reader leaves.

    At most some chunks are made ahead. Raises what `make()` raises.
    """
    ready: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
    left = threading.Event()

    def put(chunk: bytes | None) -> None:
        while not left.is_set():
            try:
                return ready.put(chunk, timeout=0.2)
            except queue.Full:
                continue
        raise _Left

    def run() -> None:
        try:
            held = bytearray()
            for piece in make():
                held += piece
                if len(held) >= _CHUNK:
                    put(bytes(held))
                    held.clear()
            if held:
                put(bytes(held))
        except _Left:
            return
        finally:
            if not left.is_set():
                put(None)

    work = asyncio.create_task(asyncio.to_thread(run))
    try:
        while (chunk := await asyncio.to_thread(ready.get)) is not None:
            yield chunk
        await work
    finally:
        left.set()
        with suppress(queue.Full):
            ready.put_nowait(None)  # a thread may wait in `get`, for a reader that is gone
        await to_its_end(work)


async def to_its_end(work: asyncio.Future[Any]) -> None:
    """Waits until a thread's work has ended, however it does, whoever is cancelled meanwhile."""
    with anyio.CancelScope(shield=True):  # a task group would break off the wait again and again
        await asyncio.shield(asyncio.gather(work, return_exceptions=True))
