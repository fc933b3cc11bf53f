"""Shares breakers and traffic with the other processes on the store, twice a second and not per call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.records import fleet_rows
from llm_proxy.records.fleet_rows import Report
from llm_proxy.sharing.breakers import SharedBreakers
from llm_proxy.sharing.moment import Moment
from llm_proxy.sharing.traffic import MINUTE_US, SharedTraffic, heard
from routing.fleet import Fleet
from routing.targets import NO_LIMITS, RouteTable, Target

log = structlog.get_logger("llm_proxy.sharing")

EVERY_S = 0.5
FORGET_S = 3_600.0
_LONGEST_KEY = 256
"""What the tables take."""


class Sharing:
    """One per worker. The fleet is touched on the event loop only, the store in threads only."""

    def __init__(
        self,
        engine: Engine,
        writer: str,
        fleet: Fleet,
        routes: RouteTable,
        now_us: Callable[[], int],
        seconds: Callable[[], float],
    ) -> None:
        known = tuple(_targets(routes))
        keys = frozenset(k for t in known for k in (t.key, *t.lanes) if len(k) <= _LONGEST_KEY)
        limited = frozenset(target.key for target in known if target.limits is not NO_LIMITS)
        self._engine = engine
        self._writer = writer
        self._traffic = fleet.traffic
        self._breakers = SharedBreakers(fleet.health, keys, writer)
        self._sent = SharedTraffic(fleet.traffic, keys, limited, writer)
        self._now_us = now_us
        self._seconds = seconds
        self._reports: list[Report] = []
        self._forget_at = float("-inf")
        self._down = False

    async def run(self) -> None:
        """Runs for as long as the worker does."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.step()

    async def step(self) -> None:
        """Hears what others wrote, and tells what changed here. Without the store, each is on its own."""
        try:
            await self._hear()
            await self._tell()
            await self._forget()
        except (SQLAlchemyError, OSError) as error:
            if not self._down:
                log.warning(
                    "the store can't be used: breakers are not shared meanwhile", error=type(error).__name__
                )
            self._down = True
        else:
            if self._down:
                log.info("breakers are shared again")
            self._down = False
        self._traffic.tell(heard(self._reports, self._now_us()))

    async def _hear(self) -> None:
        since = self._now_us() - MINUTE_US
        rows, self._reports = await asyncio.to_thread(fleet_rows.read, self._engine, self._writer, since)
        self._breakers.hear(rows, self._moment())

    async def _tell(self) -> None:
        now = self._moment()
        drafts, rows = self._breakers.drafts(now), self._sent.due(now)
        if not drafts and not rows:
            return
        versions = await asyncio.to_thread(fleet_rows.write, self._engine, drafts, rows)
        self._breakers.wrote(drafts, versions)
        self._sent.told(rows, now.s)

    async def _forget(self) -> None:
        now = self._moment()
        if now.s >= self._forget_at:
            await asyncio.to_thread(fleet_rows.forget, self._engine, now.us)
            self._forget_at = now.s + FORGET_S

    def _moment(self) -> Moment:
        return Moment(self._now_us(), self._seconds())


def _targets(routes: RouteTable) -> Iterable[Target]:
    for name in routes.names():
        resolved = routes.resolve(name)
        if resolved is not None:
            yield from resolved.targets()
