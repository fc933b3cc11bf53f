"""Replies that wait for a person: woken when somebody decides, in this process or in another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.records.approvals import ApprovalStatus, by_ids, status_at

log = structlog.get_logger("llm_proxy.approvals")

POLL_S = 0.25
"""How often the store is asked, while anybody waits: a decision may come through another process."""


class Approvals:
    """One per worker; used from the event loop. `run` it for as long as the worker does."""

    def __init__(self, decided: Callable[[Sequence[str]], Awaitable[set[str]]]) -> None:
        """`decided` says which of the approvals wait no more."""
        self._decided = decided
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._somebody = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Approvals that replies wait for."""
        return len(self._waiting)

    async def wait(self, ids: Sequence[str], timeout_s: float) -> bool:
        """Returns once any of them is decided or has expired, or after `timeout_s`: whether one was."""
        woken = asyncio.Event()
        for id_ in ids:
            self._waiting.setdefault(id_, set()).add(woken)
        self._somebody.set()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await woken.wait()
            return woken.is_set()
        finally:
            for id_ in ids:
                self._leave(id_, woken)

    def wake(self, id_: str) -> None:
        """It was decided: whoever waits for it looks again at once."""
        for woken in self._waiting.get(id_, ()):
            woken.set()

    async def run(self) -> None:
        """Asks the store for what others decided, while anybody waits."""
        blind = False
        while True:
            await self._somebody.wait()
            await asyncio.sleep(POLL_S)
            try:
                found = await self._decided(tuple(self._waiting))
            except (SQLAlchemyError, OSError) as error:
                if not blind:
                    log.warning("approvals can't be read", error=type(error).__name__)
                blind = True
                continue
            blind = False
            for id_ in found:
                self.wake(id_)

    def _leave(self, id_: str, woken: asyncio.Event) -> None:
        left = self._waiting.get(id_, set())
        left.discard(woken)
        if not left:
            self._waiting.pop(id_, None)
        if not self._waiting:
            self._somebody.clear()


def decided_in(engine: Engine, now_us: Callable[[], int]) -> Callable[[Sequence[str]], Awaitable[set[str]]]:
    """Reads from the store, in a thread, which approvals wait no more."""

    def read(ids: Sequence[str]) -> set[str]:
        with engine.connect() as connection:
            found = by_ids(connection, ids)
        now = now_us()
        return {one.id for one in found if status_at(one, now) is not ApprovalStatus.PENDING}

    async def decided(ids: Sequence[str]) -> set[str]:
        return await asyncio.to_thread(read, ids) if ids else set()

    return decided
