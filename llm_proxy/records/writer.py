"""The one thread that writes: takes all that is queued, commits it as one transaction, wakes the callers."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_never

import structlog
from sqlalchemy import Engine

from budgets import LimitBook
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.records.batch import Announce, Done, Job
from llm_proxy.records.blobs import Addresser
from llm_proxy.records.committer import Committer
from llm_proxy.records.faults import Fault, fault_of
from llm_proxy.records.runstate import RunKey

log = structlog.get_logger("llm_proxy.records")

MAX_QUEUED = 4_096
"""Jobs that may wait; past that a caller waits for room, then is refused."""
MAX_BATCH = 256
ROOM_S = 2.0
BUSY = 8
LINGER_S = 0.001
"""After a batch of `BUSY` jobs, how long the next one gathers: a transaction costs as much as several calls
do, and every statement hands the interpreter lock over. A single caller never waits for it."""
_RACES = 5
"""How often a batch is run again because another writer came between."""


def unavailable() -> ProxyError:
    return ProxyError(
        Kind.STORE_UNAVAILABLE,
        "The proxy's store can't be written just now, and no call is made that can't be recorded. "
        "Nothing was sent or charged; try again shortly.",
        retry_after_s=2,
    )


@dataclass(slots=True)
class _Queued:
    job: Job
    future: asyncio.Future[Any]


class Writer:
    """Owns the writer's thread and connection. `start` and `stop` are called once, from the event loop."""

    def __init__(
        self,
        engine: Engine,
        writer_id: str,
        now_us: Callable[[], int],
        *,
        watched: LimitBook | None = None,
        announce: Announce | None = None,
        keeps_content: bool = True,
    ) -> None:
        """`watched`: the limits whose levels somebody wants to hear of; `announce`: what goes to webhooks.

        Without `keeps_content` no content is stored, whatever jobs bring.
        """
        self.id = writer_id
        self._committer = Committer(engine, writer_id, now_us, watched, announce, keeps_content=keeps_content)
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._waiting = 0
        self._room = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="llm-proxy-writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self.healthy = True
        self.commits = 0
        """Transactions since the start."""
        self.took: Callable[[float], None] = _unheard
        """Told in the writer's thread how many seconds each of them was."""
        self.addresser: Addresser

    async def start(self) -> None:
        """Registers this writer, learns the day's salt and starts the thread."""
        self._loop = asyncio.get_running_loop()
        self.addresser = Addresser(*await asyncio.to_thread(self._committer.register))
        self._thread.start()

    async def stop(self) -> None:
        """Writes all that is queued, then ends the thread. What is submitted from now on is refused."""
        self._stopping = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    @property
    def queued(self) -> int:
        return self._waiting

    async def submit(self, job: Job) -> Any:
        """Runs `job` in a transaction; returns its value once that has committed.

        It is written even if the caller is cancelled meanwhile. Raises `ProxyError(store_unavailable)` when
        the store can't be written or the queue stays full, and what `then` raises.
        """
        if self._waiting >= MAX_QUEUED:
            await self._wait_for_room()
        if self._stopping:
            raise unavailable()
        assert self._loop is not None
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting += 1
        self._queue.put(_Queued(job, future))
        return await future

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(ROOM_S):
                while self._waiting >= MAX_QUEUED:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            raise unavailable() from None

    def _run(self) -> None:
        stopping = False
        taken: list[_Queued] = []
        while not stopping:
            busy = len(taken) >= BUSY
            taken = []
            item = self._queue.get()
            if busy:
                time.sleep(LINGER_S)
            while item is not None:
                taken.append(item)
                if len(taken) >= MAX_BATCH:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            stopping = item is None
            del item  # or the last job, content and all, would wait here for the next one
            if taken:
                self._write(taken)
        self._committer.close()

    def _write(self, taken: list[_Queued]) -> None:
        while taken:
            now, taken = _one_per_run(taken)
            self._write_together(now)

    def _write_together(self, taken: list[_Queued]) -> None:
        began = time.perf_counter()
        try:
            done = self._commit_in_turn([queued.job for queued in taken])
        except Exception as error:  # noqa: BLE001  every caller waits for an answer, whatever a job raised
            self._failed(taken, error)
        else:
            self.healthy = True
            self.commits += 1
            self.took(time.perf_counter() - began)
            self._answer(taken, done)

    def _commit_in_turn(self, jobs: list[Job]) -> Done:
        """Commits; once more from the start where another writer came between."""
        for _ in range(_RACES):
            try:
                return self._committer.commit(jobs)
            except Exception as error:
                if fault_of(error) is not Fault.RACED:
                    raise
                log.info("a batch met another writer and is run again", error=type(error).__name__)
        return self._committer.commit(jobs)

    def _failed(self, taken: list[_Queued], error: Exception) -> None:
        """One job's failure is its own: what was rolled back with it runs again, alone."""
        fault = fault_of(error)
        match fault:
            case Fault.DOWN | Fault.RACED:
                self._down(taken, error)
            case Fault.OWN if len(taken) == 1:
                log.error("a write failed", error=type(error).__name__, exc_info=error)
                # A future refuses StopIteration itself.
                own = RuntimeError("a job ran out") if isinstance(error, StopIteration) else error
                self._fail(taken, lambda: own)
            case Fault.OWN:
                for queued in taken:
                    self._write_together([queued])
            case _:
                assert_never(fault)

    def _down(self, taken: list[_Queued], error: Exception) -> None:
        if self.healthy:
            log.error("the store can't be written", error=type(error).__name__, detail=str(error)[:200])
        self.healthy = False
        if not self._committer.connected:
            taken = [*taken, *self._all_queued()]  # each would only wait for a connection of its own
        self._committer.close()
        self._fail(taken, unavailable)

    def _all_queued(self) -> list[_Queued]:
        found: list[_Queued] = []
        try:
            while (item := self._queue.get_nowait()) is not None:
                found.append(item)
            self._queue.put(None)  # the end, for the thread to find
        except queue.Empty:
            pass
        return found

    def _answer(self, taken: list[_Queued], done: Done) -> None:
        self._deliver(lambda: self._resolve(taken, done))

    def _fail(self, taken: list[_Queued], why: Callable[[], Exception]) -> None:
        self._deliver(lambda: self._reject(taken, why))

    def _deliver(self, what: Callable[[], None]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:
            # The loop was closed: nobody waits any more, and what is queued is written all the same.
            log.warning("an answer found no event loop")

    def _resolve(self, taken: list[_Queued], done: Done) -> None:
        if done.salt is not None and done.salt[0] != self.addresser.epoch:
            self.addresser.roll(*done.salt)
        self.addresser.committed(done.blobs)
        for queued, value in zip(taken, done.values, strict=True):
            if not queued.future.done():
                queued.future.set_result(value)
        self._left(len(taken))

    def _reject(self, taken: list[_Queued], why: Callable[[], Exception]) -> None:
        for queued in taken:
            if not queued.future.done():
                queued.future.set_exception(why())
        self._left(len(taken))

    def _left(self, count: int) -> None:
        self._waiting -= count
        if self._waiting < MAX_QUEUED:
            self._room.set()


def _unheard(_: float) -> None:
    return


def _one_per_run(taken: list[_Queued]) -> tuple[list[_Queued], list[_Queued]]:
    """Splits off what must see the changes of an earlier job: two jobs on one run never share a batch."""
    now: list[_Queued] = []
    later: list[_Queued] = []
    claimed: set[RunKey] = set()
    for queued in taken:
        run = queued.job.run
        if run is not None and run in claimed:
            later.append(queued)
            continue
        if run is not None:
            claimed.add(run)
        now.append(queued)
    return now, later
