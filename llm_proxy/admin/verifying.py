"""The evidence verified in a thread, for `/admin` and the console: one at a time, until who asked is gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from llm_proxy.admin.audit import verified
from llm_proxy.admin.errors import Conflict
from llm_proxy.admin.from_thread import to_its_end
from llm_proxy.audit.findings import Report
from llm_proxy.audit.source import one_moment
from llm_proxy.worker import Worker


class _Left(Exception):
    """Who asked is gone."""


@dataclass(slots=True)
class Verifying:
    """The work, and how far it is."""

    work: asyncio.Task[Report] = field(init=False)
    what: str = "Reading"
    done: int = 0
    whole: int = 0
    """0 where it isn't known."""


def not_twice(worker: Worker) -> None:
    """Raises `Conflict` while the whole evidence is read in this process."""
    if worker.auditing.locked():
        raise Conflict("The evidence is being verified or exported just now: try again after that.")


@asynccontextmanager
async def verifying(
    worker: Worker,
    limit: int,
    since: str | None = None,
    aside: Callable[[Callable[[], Report]], Awaitable[Report]] = asyncio.to_thread,
) -> AsyncGenerator[Verifying]:
    """At most `limit` findings, since a checkpoint. Waits its turn; the work ends with the block.

    `aside` runs it in a thread.
    """
    left, found = threading.Event(), Verifying()

    def told(what: str, done: int, whole: int) -> None:
        if left.is_set():
            raise _Left
        found.what, found.done, found.whole = what, done, whole

    def run() -> Report:
        key = worker.services.receipts.key
        keys = {key.id: key.public} if key is not None else {}
        with one_moment(worker.engine) as connection:
            return verified(connection, keys, limit, told, since=since)

    async def report() -> Report:
        return await aside(run)

    async with worker.auditing:
        found.work = asyncio.create_task(report())
        try:
            yield found
        finally:
            left.set()
            await to_its_end(found.work)
