"""Every request at the door of the model APIs, and what became of it: requests = records + counted refusals.

A request leaves a record, or is counted by minute and reason where it can't have one: nobody knows who
sent it, its sender left before it was whole, or the store is down. What could not be counted in the store
waits here until it can be.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Evidence, Refusal
from llm_proxy.records.writer import Writer
from llm_proxy.telemetry.door import DoorCounts

log = structlog.get_logger("llm_proxy")

EVERY_S = 1.0
MOST_WAITING = 5_000
"""Minutes and reasons that wait apart; past that, what is new counts in the last known minute."""
MINUTE_US = 60_000_000

LEFT = "client_gone"
"""The reason of a request whose sender left before it could be recorded."""


class Census:
    """One per worker; all but `run` and `flush` are for its event loop's hot path, and wait for nothing."""

    def __init__(self, writer: Writer, now_us: Callable[[], int]) -> None:
        self._writer, self._now_us = writer, now_us
        self._received = self._open = self._recorded = self._counted = self._answered = 0
        self._waiting: Counter[tuple[int, str]] = Counter()
        self._flushing = 0
        self._under_way: asyncio.Future[None] | None = None
        """Counts what waited, in the store."""

    def arrived(self) -> None:
        """A request came. Exactly one of the methods below says later what became of it."""
        self._received += 1
        self._open += 1

    def recorded(self) -> None:
        """It has a record: of a call, or of a refusal."""
        self._open -= 1
        self._recorded += 1

    def counted(self) -> None:
        """It was refused, and that is counted in the store."""
        self._open -= 1
        self._counted += 1

    def refused(self, reason: str) -> None:
        """It has no record: it is to be counted in the store."""
        self._open -= 1
        key = (self._now_us() // MINUTE_US, reason)
        if len(self._waiting) >= MOST_WAITING and key not in self._waiting:
            key = (max(minute for minute, _ in self._waiting), reason)
        self._waiting[key] += 1

    def failed(self, error: ProxyError) -> None:
        """It was refused with `error`, and no record says so."""
        if error.counted:
            self.counted()
        else:
            self.refused(error.kind.value)

    def without_call(self, error: ProxyError | None) -> None:
        """It asked for no call, but for a list of models or how a run stands; `error` is its refusal."""
        if error is not None and (error.counted or error.kind is Kind.STORE_UNAVAILABLE):
            self.failed(error)
        else:
            self._open -= 1
            self._answered += 1

    def counts(self) -> DoorCounts:
        return DoorCounts(
            received=self._received,
            open=self._open,
            recorded=self._recorded,
            refused=self._counted,
            answered=self._answered,
            waiting=self._waiting.total() + self._flushing,
        )

    async def run(self) -> None:
        """Runs for as long as the worker does."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Counts in the store what waits, where the store takes it.

        What is submitted is written even where its caller is cancelled, so that it must not be put back then:
        who flushes next waits for it first.
        """
        if self._under_way is not None:
            await asyncio.shield(self._under_way)
        if self._waiting:
            self._under_way = asyncio.ensure_future(self._count())
            await asyncio.shield(self._under_way)

    async def _count(self) -> None:
        waiting, self._waiting = self._waiting, Counter[tuple[int, str]]()
        self._flushing = total = waiting.total()
        rows = tuple(Refusal(minute, reason, times) for (minute, reason), times in waiting.items())

        def then(_found: Found) -> Wrote:
            return Wrote(None, Evidence(refusals=rows))

        taken = False
        try:
            await self._writer.submit(Job(then))
            taken = True
        except ProxyError as error:
            log.warning("refusals wait to be counted", refusals=total, error=error.kind.value)
        finally:
            self._flushing, self._under_way = 0, None
            if taken:
                self._counted += total
            else:
                self._waiting.update(waiting)
