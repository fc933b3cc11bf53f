"""What calls read of the store beside their commits: it blocks, so each is done in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Set
from contextlib import contextmanager

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.archive.recall import Recalled, recall
from llm_proxy.records.classified import load_classified
from llm_proxy.records.engine import hurried
from llm_proxy.records.policy_rows import ClassifiedRow
from llm_proxy.records.responses import StoredResponse, find_response
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.unseen import load_unseen
from llm_proxy.records.writer import unavailable

log = structlog.get_logger("llm_proxy.reads")


class Reads:
    """One per worker. Every read raises `ProxyError(store_unavailable)` where the store doesn't answer."""

    def __init__(self, engine: Engine, healthy: Callable[[], bool]) -> None:
        """`healthy` is whether the store could be written the last time: else nothing is asked of it."""
        self._engine = engine
        self._healthy = healthy

    async def stored(self, agent_id: str, response: str) -> StoredResponse | None:
        return await asyncio.to_thread(self._stored, agent_id, response)

    async def recall(self, agent_id: str, response: str) -> Recalled | None:
        return await asyncio.to_thread(self._recall, agent_id, response)

    def unseen(self, run: RunKey, wanted: Set[str]) -> dict[str, bytes]:
        """Blocks."""
        with self._connected("what agents never saw") as connection:
            return load_unseen(connection, run, wanted)

    def classified(self, run: RunKey) -> list[ClassifiedRow]:
        """Blocks."""
        with self._connected("classified values") as connection:
            return load_classified(connection, run)

    def _stored(self, agent_id: str, response: str) -> StoredResponse | None:
        with self._connected("responses") as connection:
            return find_response(connection, agent_id, response)

    def _recall(self, agent_id: str, response: str) -> Recalled | None:
        with self._connected("conversations") as connection:
            return recall(connection, agent_id, response)

    @contextmanager
    def _connected(self, what: str) -> Generator[Connection]:
        if not self._healthy():
            raise unavailable()
        try:
            with hurried(self._engine.connect()) as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            told = {"what": what, "error": type(error).__name__, "detail": str(error)[:200]}
            log.error("the store can't be read", **told)
            raise unavailable() from None
