"""The one thread that writes: takes all that is queued, commits it as one transaction, wakes the callers."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from budgets import SqlLedger
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.records.batch import Done, Head, Job, run_batch
from llm_proxy.records.blobs import Addresser, Codec, ensure_salt, epoch_of
from llm_proxy.records.chain import GENESIS
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.statements import Statements
from llm_proxy.records.tables import writers

log = structlog.get_logger("llm_proxy.records")

MAX_QUEUED = 4_096
"""Jobs that may wait; past that a caller waits for room, then is refused."""
MAX_BATCH = 256
ROOM_S = 2.0


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

    def __init__(self, engine: Engine, writer_id: str, now_us: Callable[[], int]) -> None:
        self.id = writer_id
        self._engine = engine
        self._now_us = now_us
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._waiting = 0
        self._room = asyncio.Event()
        self._head = Head(0, GENESIS)
        self._connection: Connection | None = None
        self._ledger = SqlLedger(engine.dialect)
        self._statements = Statements(engine.dialect)
        self._codec = Codec()
        self._thread = threading.Thread(target=self._run, name="llm-proxy-writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._registered = False
        self._salt: tuple[int, bytes] | None = None
        self.healthy = True
        self.addresser: Addresser

    async def start(self) -> None:
        """Registers this writer, learns the day's salt and starts the thread."""
        self._loop = asyncio.get_running_loop()
        epoch, salt = await asyncio.to_thread(self._register)
        self.addresser = Addresser(epoch, salt)
        self._thread.start()

    async def stop(self) -> None:
        """Writes all that is queued, then ends the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    @property
    def queued(self) -> int:
        return self._waiting

    async def submit(self, job: Job) -> Any:
        """Runs `job` in a transaction; returns its value once that has committed.

        Raises `ProxyError(store_unavailable)` when the store can't be written or the queue stays full.
        """
        if self._waiting >= MAX_QUEUED:
            await self._wait_for_room()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting += 1
        self._queue.put(_Queued(job, future))
        return await future

    async def _wait_for_room(self) -> None:
        self._room.clear()
        try:
            async with asyncio.timeout(ROOM_S):
                await self._room.wait()
        except TimeoutError:
            raise unavailable() from None
        if self._waiting >= MAX_QUEUED:
            raise unavailable()

    def _register(self) -> tuple[int, bytes]:
        now = self._now_us()
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            connection.execute(
                writers.insert().values(
                    writer=self.id, started_us=now, seen_us=now, head_seq=0, head_hash=GENESIS, exported_seq=0
                )
            )
            epoch = epoch_of(now)
            return epoch, ensure_salt(connection, epoch)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            taken: list[_Queued] = []
            item = self._queue.get()
            while item is not None:
                taken.append(item)
                if len(taken) >= MAX_BATCH:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            stopping = item is None
            if taken:
                self._write(taken)
        self._drop_connection()

    def _write(self, taken: list[_Queued]) -> None:
        now, later = _one_per_run(taken)
        self._write_together(now)
        if later:
            self._write(later)

    def _write_together(self, taken: list[_Queued]) -> None:
        jobs = [queued.job for queued in taken]
        try:
            done = self._commit(jobs)
        except (OperationalError, InterfaceError, OSError) as error:
            self._down(taken, error)
        except Exception as error:
            self._apart(taken, error)
        else:
            self.healthy = True
            self._answer(taken, done)

    def _apart(self, taken: list[_Queued], error: Exception) -> None:
        """One job's failure is its own: what was rolled back with it runs again, alone."""
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            self._down(taken, error)
        elif len(taken) == 1:
            log.error("a write failed", error=type(error).__name__, exc_info=error)
            self._fail(taken, error)
        else:
            for queued in taken:
                self._write_together([queued])

    def _commit(self, jobs: list[Job]) -> Done:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._engine.connect().execution_options(writes=True)
        now = self._now_us()
        with connection.begin():
            if self._salt is None or self._salt[0] != epoch_of(now):
                self._salt = (epoch_of(now), ensure_salt(connection, epoch_of(now)))
            done = run_batch(
                connection,
                jobs,
                ledger=self._ledger,
                statements=self._statements,
                codec=self._codec,
                writer=self.id,
                head=self._head,
                now_us=now,
            )
        if done.head is not None:
            self._head = done.head
        return done

    def _down(self, taken: list[_Queued], error: Exception) -> None:
        if self.healthy:
            log.error("the store can't be written", error=type(error).__name__, detail=str(error)[:200])
        self.healthy = False
        self._drop_connection()
        self._fail(taken, unavailable())

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except DBAPIError as error:
                log.warning("closing a broken connection failed", error=type(error).__name__)

    def _answer(self, taken: list[_Queued], done: Done) -> None:
        self._deliver(lambda: self._resolve(taken, done))

    def _fail(self, taken: list[_Queued], error: Exception) -> None:
        self._deliver(lambda: self._reject(taken, error))

    def _deliver(self, what: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(what)

    def _resolve(self, taken: list[_Queued], done: Done) -> None:
        if self._salt is not None and self._salt[0] != self.addresser.epoch:
            self.addresser.roll(*self._salt)
        self.addresser.committed(done.blobs)
        for queued, value in zip(taken, done.values, strict=True):
            if not queued.future.done():
                queued.future.set_result(value)
        self._left(len(taken))

    def _reject(self, taken: list[_Queued], error: Exception) -> None:
        for queued in taken:
            if not queued.future.done():
                queued.future.set_exception(error)
        self._left(len(taken))

    def _left(self, count: int) -> None:
        self._waiting -= count
        if self._waiting < MAX_QUEUED:
            self._room.set()


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
