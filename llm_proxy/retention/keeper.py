"""Deletes content that is older than `records.retention_days`, one process of those on a store at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.archive.search_index import delete_texts
from llm_proxy.errors import ProxyError
from llm_proxy.records.audit_rows import PurgedRow
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.blobs import DAY_US, epoch_of
from llm_proxy.records.evidence import Draft, Evidence, RecordKind
from llm_proxy.records.leases import Lease
from llm_proxy.records.retention_bodies import DayExported, Deleted, Stage, encode
from llm_proxy.records.writer import Writer
from llm_proxy.retention import beside
from llm_proxy.retention.days import Due, day_of, due, first_kept
from llm_proxy.retention.deleting import Day, Gone, HoldsChanged, in_steps
from llm_proxy.retention.exporting import Exported, ExportFailed, export_day
from llm_proxy.retention.held import TooManyHeld, held_runs, holds

log = structlog.get_logger("llm_proxy.retention")

LOOK_S = 15.0
"""Between two looks at the clock: a new day's salt is taken into use, even where no call comes."""
LEASE_US = 30_000_000
EVERY = 40
"""Looks between two turns; where another process was at it, the next look is one."""
PAUSE_S = 0.02
"""After a transaction: whoever waits to write comes in between."""
BY_ITSELF = "retention"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the config says. `export`: the folder for what is about to be deleted; None keeps no copy.

    `keeps_all`: content is kept in full until then; otherwise what people and agents needed goes early.
    """

    days: int
    export: Path | None = None
    keeps_all: bool = True


class DayDone(NamedTuple):
    """What came of one day."""

    epoch: int
    gone: Gone
    kept: int
    held_runs: int
    file: str = ""


class Busy(Exception):
    """Another process is at it."""


class Retention:
    """One per worker. `run` it in its event loop; `turn` may be awaited by others too, one at a time."""

    def __init__(self, engine: Engine, writer: Writer, now_us: Callable[[], int], rules: Rules) -> None:
        self._engine = engine
        self._writer = writer
        self._now_us = now_us
        self._rules = rules
        self._lease = Lease(engine, "retention", writer.id, now_us, LEASE_US)
        self._one = asyncio.Lock()
        self._stopped = Event()
        self._owing = True
        """What stands beside content may still have to go: of days that went, maybe before this process."""
        self.problem = ""
        """Why the last turn did not come to its end; empty where it did."""

    async def run(self) -> None:
        """Runs for as long as the worker does."""
        looks = 0
        while True:
            try:
                await self._roll()
                if looks % EVERY == 0 and not await self._by_itself():
                    looks -= 1
            except (ProxyError, SQLAlchemyError, OSError) as error:
                self.problem = f"the store can't be used ({type(error).__name__})"
                log.warning("retention waits for the store", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001  a damaged row must not end all that runs beside calls
                self.problem = f"something of it can't be read ({type(error).__name__})"
                log.error("content that is due stays undeleted", why=self.problem)
            looks += 1
            await asyncio.sleep(LOOK_S)

    async def turn(self, by: str = BY_ITSELF) -> list[DayDone]:
        """Deletes all that is due, and says what came of each day.

        Raises `Busy`, `ExportFailed`, `TooManyHeld`, `ProxyError(store_unavailable)` and what the database
        raises; what was begun is gone on with in the next turn.
        """
        async with self._one:
            self._stopped = Event()
            try:
                if not await asyncio.to_thread(self._lease.lead):
                    raise Busy
                done = await self._turn(by)
            except (ExportFailed, TooManyHeld) as error:
                self.problem = str(error)
                raise
            finally:
                self._stopped.set()
                await asyncio.to_thread(self._lease.release)
        self.problem = ""
        return done

    async def _by_itself(self) -> bool:
        """False where another process is at it, or was a moment ago."""
        try:
            await self.turn()
        except Busy:
            return False
        except (ExportFailed, TooManyHeld) as error:
            log.error("content that is due stays undeleted", why=str(error))
        return True

    async def _roll(self) -> None:
        """A process that rested over midnight would go on with the salt of a day that is deleted some day."""
        if self._writer.addresser.epoch != epoch_of(self._now_us()):
            await self._writer.submit(Job(lambda _: Wrote(None)))

    async def _turn(self, by: str) -> list[DayDone]:
        before = first_kept(self._now_us(), self._rules.days)
        done = [await self._day(each, by) for each in await asyncio.to_thread(self._due, before)]
        if self._owing:
            await asyncio.to_thread(self._forget, before)
        if self._owing or not self._rules.keeps_all:
            await self._beside(before)
        self._owing = False
        return done

    def _due(self, before: int) -> list[Due]:
        with self._engine.connect() as connection:
            return due(connection, before, holds(connection).released_us)

    async def _day(self, each: Due, by: str) -> DayDone:
        """One day: a copy, the word that it goes, all of it but what is held, and the word that it's gone."""
        epoch, noted, _ = each
        resumed = noted is not None and noted.ended_us is None
        file = "" if resumed else await self._export(each, by)
        gone = Gone(noted.blobs, noted.bytes) if noted is not None else Gone()
        at_us = self._now_us()
        if not resumed:
            await self._note(PurgedRow(epoch, at_us, None, *gone), by, file=file)
        while True:
            try:
                day = await asyncio.to_thread(Day, self._engine, epoch)
                while (more := await asyncio.to_thread(day.step)) is not None:
                    gone = Gone(gone.blobs + more.blobs, gone.bytes + more.bytes)
                    await self._lead()
                kept = await asyncio.to_thread(day.end)
                break
            except HoldsChanged:
                at_us = self._now_us()
        self._owing = True
        row = PurgedRow(epoch, at_us, self._now_us(), *gone, kept)
        await self._note(row, by, held_runs=len(day.held), file=file)
        log.info("a day's content was deleted", day=day_of(epoch), blobs=gone.blobs, kept=kept)
        return DayDone(epoch, gone, kept, len(day.held), file)

    async def _export(self, each: Due, by: str) -> str:
        """The file's name, empty where no copy is wanted or there is nothing to copy."""
        folder = self._rules.export
        if folder is None or not each.stored:
            return ""
        whole, stopped = each.noted is None, self._stopped.is_set
        write = partial(
            export_day, self._engine, each.epoch, folder, self._writer.id, whole=whole, stopped=stopped
        )
        writing = asyncio.create_task(asyncio.to_thread(write))
        while not (await asyncio.wait({writing}, timeout=LEASE_US / 4e6))[0]:
            await self._lead()
        made = await writing
        body = encode(_exported(each.epoch, by, made))
        await self._record(RecordKind.RECORDS_EXPORTED, body)
        return str(made.path)

    async def _note(self, row: PurgedRow, by: str, *, held_runs: int = 0, file: str = "") -> None:
        body = Deleted(
            epoch=row.epoch,
            day=day_of(row.epoch),
            stage=Stage.BEGUN if row.ended_us is None else Stage.DONE,
            by=by,
            retention_days=self._rules.days,
            held_runs=held_runs,
            blobs=row.blobs,
            bytes=row.bytes,
            kept=row.kept,
            file=file,
        )
        await self._record(RecordKind.CONTENT_DELETED, encode(body), row)

    async def _record(self, kind: RecordKind, body: bytes, *rows: PurgedRow) -> None:
        draft = Draft(kind, self._now_us(), None, None, None, body)
        evidence = Evidence(records=(draft,), purged=rows)
        await self._writer.submit(Job(lambda _: Wrote(None, evidence)))

    async def _beside(self, before: int) -> None:
        held = await asyncio.to_thread(self._held)
        cutoff_us = before * DAY_US
        cleared = partial(beside.cleared, cutoff_us=cutoff_us, held=held)
        changes: list[Callable[[Connection], int]] = [cleared]
        if not self._rules.keeps_all:
            early_us = self._now_us() - DAY_US
            unseen = partial(beside.unseen_cleared, cutoff_us=early_us, held=held)
            sent = partial(beside.deliveries_cleared, cutoff_us=early_us, held=held)
            changes += [partial(beside.blanked, held=held), unseen, sent]
        for change in changes:
            steps = in_steps(self._engine, change)
            while await asyncio.to_thread(next, steps, 0):
                await self._lead()

    def _forget(self, before: int) -> None:
        """No word of what is gone is found any more."""
        with self._engine.connect() as connection, connection.begin():  # SQLite's index is another file
            delete_texts(connection, before, held_runs(connection))

    def _held(self) -> beside.Held:
        with self._engine.connect() as connection:
            return held_runs(connection)

    async def _lead(self) -> None:
        """Lets others write, and keeps the lease. Raises `Busy` once another process has it."""
        await asyncio.sleep(PAUSE_S)
        if not await asyncio.to_thread(self._lease.lead):
            raise Busy


def _exported(epoch: int, by: str, made: Exported) -> DayExported:
    return DayExported(
        by=by,
        what="retention",
        epoch=epoch,
        day=day_of(epoch),
        file=str(made.path),
        sha256=made.sha256,
        bytes=made.bytes,
        calls=made.calls,
    )
