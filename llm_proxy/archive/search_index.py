"""The search index of a store: where it is, how far it is behind, and forgetting what must not be found."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from llm_proxy.archive.calls import call_views
from llm_proxy.archive.search_documents import Document, texts_of
from llm_proxy.archive.search_postgres import PostgresIndex
from llm_proxy.archive.search_sqlite import NoIndex, SqliteIndex
from llm_proxy.archive.search_store import TextIndex
from llm_proxy.records.blobs import KEPT
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import records, salts, writers


class Behind(NamedTuple):
    """What of the records isn't indexed yet."""

    records: int = 0
    oldest_us: int | None = None
    """When the oldest of them was made."""


def identity_of(connection: Connection) -> str:
    """What tells this store from others; empty for one in which no proxy ran."""
    salt = connection.execute(select(salts.c.salt).where(salts.c.epoch == KEPT)).scalar()
    return "" if salt is None else hashlib.blake2b(bytes(salt), digest_size=16).hexdigest()


def file_of(connection: Connection) -> Path:
    """The file of a SQLite store."""
    for _, name, file in connection.exec_driver_sql("PRAGMA database_list"):
        if name == "main" and file:
            return Path(file)
    raise NoIndex("A store in memory can't be searched")


@contextmanager
def open_index(connection: Connection) -> Generator[TextIndex]:
    """To search with. Raises `NoIndex` where there is none, and `SQLAlchemyError`."""
    if connection.dialect.name == "postgresql":
        yield PostgresIndex(connection)
        return
    index = SqliteIndex.read(file_of(connection), identity_of(connection))
    try:
        yield index
    finally:
        index.close()


def behind(connection: Connection, cursors: Mapping[str, int]) -> Behind:
    """How far the index is behind the records."""
    count, oldest = 0, None
    for writer, head in connection.execute(select(writers.c.writer, writers.c.head_seq)):
        at = cursors.get(writer, 0)
        if head <= at:
            continue
        count += head - at
        first = select(func.min(records.c.at_us)).where(records.c.writer == writer, records.c.seq == at + 1)
        at_us = connection.execute(first).scalar()
        if at_us is not None and (oldest is None or at_us < oldest):
            oldest = at_us
    return Behind(count, oldest)


def delete_texts(connection: Connection, before_epoch: int, kept_runs: Collection[RunKey]) -> int:
    """Forgets what of days before `before_epoch` can be searched, but for `kept_runs`; how many texts.

    On PostgreSQL in the transaction of `connection`; on SQLite in the index's own file. Doing it again, or
    leaving it to the indexer, which follows `state_purged` within a minute, comes to the same.
    """
    if connection.dialect.name == "postgresql":
        return PostgresIndex(connection).forget(before_epoch, kept_runs)
    try:
        with open_index(connection) as found:
            days = found.days()
    except NoIndex:
        return 0
    if days is None or days[0] >= before_epoch:
        return 0
    index = SqliteIndex.open(file_of(connection), identity_of(connection))
    try:
        return sum(_forget(connection, index, day, kept_runs) for day in range(days[0], before_epoch))
    finally:
        index.close()


def _forget(connection: Connection, index: SqliteIndex, day: int, kept_runs: Collection[RunKey]) -> int:
    calls = index.calls_of(day)
    kept = [call for call, agent, run in calls if RunKey(agent, run) in kept_runs]
    if len(kept) == len(calls):
        return 0
    told: list[Document] = []
    for call in kept:
        texts = {key: one for view in call_views(connection, [call]) for key, one in texts_of(view).items()}
        told += [texts[key]._replace(key=key) for key in index.known(list(texts))]
    return index.forget(day, told)
