"""Reads of runs over a connection and in a thread of their own: they wait for no listing and no writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.records.engine import discard, hurried
from llm_proxy.records.writer import unavailable

T = TypeVar("T")
_DOWN_S = 1.0
"""How long after a read that failed the store isn't asked again."""

log = structlog.get_logger("llm_proxy.runs")


class RunLookup:
    """Opening a SQLite file costs ten times what a read does, so the connection is kept.

    While the store is known to be down nothing is asked of it: no caller waits to be told.
    """

    def __init__(self, engine: Engine, healthy: Callable[[], bool]) -> None:
        """`healthy` is whether the store could be written the last time."""
        self._engine = engine
        self._healthy = healthy
        self._down_until = float("-inf")
        self._thread = ThreadPoolExecutor(1, "llm-proxy-runs")
        self._connection: Connection | None = None

    async def ask(self, read: Callable[[Connection], T]) -> T:
        """What `read` makes of one moment of the store. Raises `ProxyError(store_unavailable)`."""
        try:
            if not self._healthy() or monotonic() < self._down_until:
                raise unavailable()
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, read)
        except (SQLAlchemyError, OSError, LookupError) as error:
            log.error("runs can't be read", error=type(error).__name__, detail=str(error)[:200])
            raise unavailable() from None

    def close(self) -> None:
        """Waits for the read that is under way."""
        self._thread.shutdown()
        self._drop()

    def _read(self, read: Callable[[Connection], T]) -> T:
        if monotonic() < self._down_until:
            raise unavailable()  # it went down while this read waited for its turn
        try:
            return self._attempt(read)
        except (SQLAlchemyError, OSError):
            self._down_until = monotonic() + _DOWN_S
            raise

    def _attempt(self, read: Callable[[Connection], T]) -> T:
        kept = self._connection is not None
        try:
            return self._once(read)
        except SQLAlchemyError:
            self._drop()
            if not kept:
                raise
        try:
            return self._once(read)  # a kept connection may have gone stale
        except SQLAlchemyError:
            self._drop()
            raise

    def _once(self, read: Callable[[Connection], T]) -> T:
        if self._connection is None:
            self._connection = hurried(self._engine.connect())
        with self._connection.begin():
            return read(self._connection)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if error := discard(connection):
            log.info("a broken connection was dropped", error=type(error).__name__)
