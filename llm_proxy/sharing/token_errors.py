"""Keeps the measured error of token counts in the store, together with the other processes on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.counting.error import FADES, MOST_KEYS, Measured, TokenErrors
from llm_proxy.records import error_rows

log = structlog.get_logger("llm_proxy.sharing")

EVERY_S = 5.0


class SharedTokenErrors:
    """One per worker. What is measured is touched on the event loop only, the store in threads only."""

    def __init__(self, engine: Engine, errors: TokenErrors, now_us: Callable[[], int]) -> None:
        self._engine = engine
        self._errors = errors
        self._now_us = now_us

    async def run(self) -> None:
        """Runs for as long as the worker does; what is new at its end is written then."""
        while True:
            try:
                await asyncio.sleep(EVERY_S)
            finally:
                await self.step()

    async def step(self) -> None:
        """Writes what is new, and hears what others wrote. Without the store it waits."""
        new = {key: (one.samples, one.mean, one.worst) for key, one in self._errors.take().items()}
        try:
            rows = await asyncio.to_thread(self._exchange, new)
        except (SQLAlchemyError, OSError) as error:
            self._errors.keep()
            log.warning("measured token counts wait for the store", error=type(error).__name__)
        else:
            self._errors.hear({key: Measured(*row) for key, row in rows.items()})

    def _exchange(self, new: dict[str, error_rows.Row]) -> dict[str, error_rows.Row]:
        """In one transaction: what is written and then couldn't be read again would be written twice."""
        with self._engine.begin() as connection:
            error_rows.add(connection, new, self._now_us(), FADES)
            return error_rows.read(connection, MOST_KEYS)
