"""Keeps the search index: behind the calls, in the order of the records, by one process at a time.

What a batch adds and how far it went are one transaction of the index, so that a crash leaves nothing out and
adds nothing twice. The index holds no text: what is shown of a hit is read from the store.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DataError, SQLAlchemyError

from llm_proxy.archive.calls import NewOfCall, new_of_calls
from llm_proxy.archive.search_documents import Document, documents
from llm_proxy.archive.search_index import (
    Behind,
    behind,
    delete_texts,
    file_of,
    identity_of,
    open_index,
)
from llm_proxy.archive.search_postgres import PostgresIndex
from llm_proxy.archive.search_sqlite import NoIndex, SqliteIndex
from llm_proxy.archive.search_store import Move, TextIndex
from llm_proxy.records.audit_tables import legal_holds, purged
from llm_proxy.records.blobs import epoch_of
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.leases import Lease
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import records, writers
from llm_proxy.telemetry.pace import Pace

log = structlog.get_logger("llm_proxy.search")

_TERMINAL = (RecordKind.CALL_CLOSED.value, RecordKind.CALL_REFUSED.value)
SCAN = 1_000
"""Rows of the record that one step looks at."""
MOST_BYTES = 8 << 20
"""Of a call's content, that are read at once: in memory it takes many times as much. Of one with more the
newest messages are indexed that fit beside the reply."""
AT_ONCE = 32
"""Calls that one step indexes."""
TOGETHER = 8
"""Calls that are read together."""
REMEMBERED = 50_000
"""Keys of texts, and addresses of messages."""
SHARE, HURRIED_SHARE, HURRY_AFTER_S = 0.05, 0.1, 30.0
"""Of one core, and once the oldest call that waits is that old."""
IDLE_S = 0.4
FAILED_S = 5.0
TIDY_S = 60.0


class _Remembered:
    """Keys of texts that were indexed, or passed over, lately; asks the index for the others."""

    def __init__(self) -> None:
        self._keys: OrderedDict[bytes, None] = OrderedDict()
        self._fresh: set[bytes] = set()
        self.index: TextIndex

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        found = {key for key in keys if key in self._keys or key in self._fresh}
        others = [key for key in keys if key not in found]
        if others:
            there = self.index.known(others)
            self._add(there)
            found |= there
        return found

    def passed(self, key: bytes) -> None:
        self._add((key,))

    def told(self, found: Sequence[Document]) -> None:
        """Of the batch at hand, which may yet fail."""
        self._fresh.update(one.key for one in found)

    def over(self, *, added: bool) -> None:
        if added:
            self._add(self._fresh)
        self._fresh.clear()

    def _add(self, keys: Collection[bytes]) -> None:
        for key in keys:
            self._keys[key] = None
        while len(self._keys) > REMEMBERED:
            self._keys.popitem(last=False)


class _Handled:
    """By run and day, the addresses of messages that were indexed: a history that is resent isn't read again.

    The day is that of the call, under which its texts are found.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[RunKey, int], set[bytes]] = OrderedDict()
        self._count = 0
        self._fresh: list[tuple[tuple[RunKey, int], frozenset[bytes]]] = []

    def known(self, run: RunKey, at_us: int) -> Collection[bytes]:
        key = run, epoch_of(at_us)
        if key in self._runs:
            self._runs.move_to_end(key)
        return self._runs.get(key, set[bytes]())

    def read(self, new: NewOfCall) -> None:
        """By the batch at hand, which may yet fail."""
        run = RunKey(new.view.agent_id, new.view.run_id)
        self._fresh.append(((run, epoch_of(new.view.started_us)), new.ids))

    def over(self, *, added: bool) -> None:
        for key, ids in self._fresh if added else ():
            if not ids:  # a call without content, which would stand here for ever
                continue
            there = self._runs.setdefault(key, set())
            before = len(there)
            there |= ids
            self._count += len(there) - before
        self._fresh.clear()
        while self._count > REMEMBERED:
            self._count -= len(self._runs.popitem(last=False)[1])


class Indexer:
    """One per worker: a thread of its own between `start` and `stop`. `told` hears how far it's behind."""

    def __init__(
        self,
        engine: Engine,
        holder: str,
        now_us: Callable[[], int],
        told: Callable[[int, float], None] | None = None,
        held: Callable[[Connection], Collection[RunKey]] | None = None,
    ) -> None:
        """`held`: the runs whose texts stay when their day goes; None takes those that holds name."""
        self._engine = engine
        self._now_us = now_us
        self._told = told
        self._held = held or _named_by_holds
        self._lease = Lease(engine, "search", holder, now_us)
        self._remembered = _Remembered()
        self._handled = _Handled()
        self._sqlite: SqliteIndex | None = None
        self._turn = ""
        self._failing = ""
        self._tidied = float("-inf")
        self._stopping = threading.Event()
        self._pace: Pace | None = None
        self._thread = threading.Thread(target=self._run, name="llm-proxy-search", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, grace_s: float = 1.0) -> None:
        """Indexes what it can within `grace_s`; the rest waits for the next start."""
        self._grace_until = time.monotonic() + grace_s
        self._stopping.set()
        self._thread.join(grace_s + 5.0)

    def catch_up(self, seconds: float) -> Behind:
        """Without `start`: indexes what is missing, or waits until another process has."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                if self._lease.lead():
                    if not self._step():
                        break
                elif not self.behind().records:
                    break
                else:
                    time.sleep(0.1)
            return self.behind()
        finally:
            self._over(added=False)
            self._close()

    def behind(self) -> Behind:
        with self._engine.connect() as connection:
            try:
                with open_index(connection) as index:
                    return behind(connection, index.cursors())
            except NoIndex:
                return behind(connection, {})

    def _run(self) -> None:
        self._pace = Pace(SHARE, time.thread_time, time.monotonic, self._stopping.wait)
        while not self._stopping.is_set():
            if not self._guarded():
                self._stopping.wait(FAILED_S if self._failing else IDLE_S)
        self._pace = None
        while time.monotonic() < self._grace_until and self._guarded():
            pass
        self._close()

    def _close(self) -> None:
        try:
            self._lease.release()
        except (SQLAlchemyError, OSError) as error:
            log.info("the lease of the search index runs out by itself", error=type(error).__name__)
        self._shut()

    def _guarded(self) -> bool:
        """One step; False where there is nothing to do, or it failed. The thread lives on."""
        try:
            worked = self._lease.lead() and self._step()
            self._tidy()
        except Exception as error:  # noqa: BLE001  the thread's edge: any store may raise anything
            if not self._failing:
                log.warning("texts wait to be indexed for search", error=type(error).__name__)
            self._failing = type(error).__name__
            self._over(added=False)
            self._shut()
            return False
        self._failing = ""
        return worked

    def _shut(self) -> None:
        index, self._sqlite = self._sqlite, None
        if index is not None:
            index.close()

    def _step(self) -> bool:
        """Indexes some calls of the next writer in turn; False where everything is indexed."""
        with self._engine.connect() as connection:
            index = self._remembered.index = self._index(connection)
            next_up = self._behind(connection, index.cursors())
            if next_up is None:
                return False
            writer, after, head = next_up
            chosen = _terminal(connection, writer, after)
            found: list[Document] = []
            for start in range(0, len(chosen), TOGETHER):
                some = [call_id for _, call_id in chosen[start : start + TOGETHER]]
                found += self._documents(connection, some)
                if self._pace is not None:
                    self._pace.breathe()
        full = len(chosen) == AT_ONCE
        self._add(found, Move(writer, after, chosen[-1][0] if full else min(head, after + SCAN)))
        return True

    def _index(self, connection: Connection) -> TextIndex:
        if connection.dialect.name == "postgresql":
            return PostgresIndex(connection)
        if self._sqlite is None:
            self._sqlite = SqliteIndex.open(file_of(connection), identity_of(connection))
            self._remembered, self._handled = _Remembered(), _Handled()
        return self._sqlite

    def _behind(self, connection: Connection, cursors: Mapping[str, int]) -> tuple[str, int, int] | None:
        heads = connection.execute(select(writers.c.writer, writers.c.head_seq)).all()
        waiting = sorted(
            (writer <= self._turn, writer, cursors.get(writer, 0), head)
            for writer, head in heads
            if head > cursors.get(writer, 0)
        )
        if not waiting:
            self._measure(connection, cursors)
            return None
        _, writer, after, head = waiting[0]
        self._turn = writer
        self._measure(connection, cursors)
        return writer, after, head

    def _measure(self, connection: Connection, cursors: Mapping[str, int]) -> None:
        left = behind(connection, cursors)
        age = 0.0 if left.oldest_us is None else max(0.0, (self._now_us() - left.oldest_us) / 1e6)
        if self._told is not None:
            self._told(left.records, age)
        if self._pace is not None:
            self._pace.share = HURRIED_SHARE if age > HURRY_AFTER_S else SHARE

    def _documents(self, connection: Connection, call_ids: list[str]) -> list[Document]:
        """None of a record that can't be read: it must not hold up all the others."""
        found: list[Document] = []
        try:
            for new in new_of_calls(connection, call_ids, MOST_BYTES, self._handled.known):
                found += self._texts(new)
        except (SQLAlchemyError, sqlite3.Error, OSError):
            raise
        except Exception as error:  # noqa: BLE001  whatever is odd about it
            if len(call_ids) == 1:
                why = type(error).__name__
                log.warning("a call can't be indexed for search", call_id=call_ids[0], error=why)
                return []
            known = {one.call_id for one in found}
            others = [call_id for call_id in call_ids if call_id not in known]
            found += [one for call_id in others for one in self._documents(connection, [call_id])]
        return found

    def _texts(self, new: NewOfCall) -> list[Document]:
        found = documents(new.view, self._remembered)
        self._remembered.told(found)
        self._handled.read(new)
        return found

    def _add(self, found: Sequence[Document], move: Move) -> None:
        if self._sqlite is not None:
            self._sqlite.add(found, move)
        else:
            try:
                with self._engine.begin() as connection:
                    PostgresIndex(connection).add(found, move)
            except DataError:
                self._add_singly(found, move)
        self._over(added=True)

    def _over(self, *, added: bool) -> None:
        self._remembered.over(added=added)
        self._handled.over(added=added)

    def _add_singly(self, found: Sequence[Document], move: Move) -> None:
        """Leaves out what PostgreSQL won't take: it must not hold up all the others."""
        for one in found:
            try:
                with self._engine.begin() as connection:
                    PostgresIndex(connection).add_texts([one])
            except DataError as error:
                why = type(error).__name__
                log.warning("a text can't be indexed for search", call_id=one.call_id, error=why)
        with self._engine.begin() as connection:
            PostgresIndex(connection).move(move)

    def _tidy(self) -> None:
        """Forgets the texts of days whose content was deleted."""
        if time.monotonic() - self._tidied < TIDY_S or not self._lease.lead():
            return
        self._tidied = time.monotonic()
        with self._engine.begin() as connection:
            last = connection.execute(select(func.max(purged.c.epoch))).scalar()
            if last is None:
                return
            gone = delete_texts(connection, last + 1, self._held(connection))
        if gone:
            log.info("deleted content can't be searched any more", texts=gone)


def _named_by_holds(connection: Connection) -> set[RunKey]:
    c = legal_holds.c
    held = connection.execute(select(c.agent_id, c.run_id).where(c.released_us.is_(None)))
    return {RunKey(*row) for row in held}


def _terminal(connection: Connection, writer: str, after: int) -> list[tuple[int, str]]:
    c = records.c
    query = select(c.seq, c.call_id).where(c.writer == writer, c.seq > after, c.seq <= after + SCAN)
    query = query.where(c.kind.in_(_TERMINAL)).order_by(c.seq).limit(AT_ONCE)
    return [(seq, call_id) for seq, call_id in connection.execute(query) if call_id]
