"""The store, read in a thread by those who run in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from llm_proxy.worker import Worker

T = TypeVar("T")


class StoreReads:
    """Each read has a connection of its own, and raises what it raises."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def __call__(self, read: Callable[[Connection], T]) -> T:
        def reading() -> T:
            with self._worker.engine.connect() as connection:
                return read(connection)

        return await asyncio.to_thread(reading)
