"""What a long run adds to the store, search index included, held against the bytes of its messages.

A message counts once, however often it's resent. The store is warm: an earlier run of the same kind made the
tables' first pages and free-space maps, which a store has once. After that everything counts: whole pages,
indexes, what updates left behind, and the room that is free within a page.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import string
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import Engine, text

from llm_proxy.archive.search_index import file_of
from llm_proxy.archive.search_indexer import Indexer
from llm_proxy.archive.search_sqlite import index_file
from llm_proxy.records.engine import open_engine
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.either_store import store as store
from tests.proxy import ProxyProcess, config, headers

pytest_plugins = ["tests.postgres"]

TURNS = 50
HISTORY = 100_000
"""Bytes of what the run begins with and resends each time."""
DOCS = Path(__file__).parents[2] / "docs"
SENTENCES = sorted(
    {
        one.strip()
        for page in DOCS.rglob("*.md")
        for one in page.read_text().split(". ")
        if 20 < len(one) < 300
    }
)
Text = Callable[[random.Random, int], str]


def prose(random_: random.Random, size: int) -> str:
    """Sentences of this project's own documents, in an order that hardly comes twice."""
    said, length = list[str](), 0
    while length < size:
        said.append(random_.choice(SENTENCES))
        length += len(said[-1].encode()) + 1
    return " ".join(said)


def noise(random_: random.Random, size: int) -> str:
    """Words of random letters and digits, each of which comes once: it hardly shrinks, and all is indexed."""
    said, length = list[str](), 0
    while length < size:
        said.append("".join(random_.choices(string.ascii_letters + string.digits, k=random_.randint(3, 12))))
        length += len(said[-1]) + 1
    return " ".join(said)


class Run:
    """One run of many turns; its messages are in `history`."""

    def __init__(self, name: str, words: Text, random_: random.Random) -> None:
        self._name, self._words, self._random = name, words, random_
        self.history: list[dict[str, Any]] = [
            {"role": ("user", "assistant")[n % 2], "content": words(random_, HISTORY // 20)}
            for n in range(20)
        ]

    async def go(self, url: str, turns: int) -> None:
        async with aiohttp.ClientSession(headers=headers(x_run_id=self._name)) as http:
            for _ in range(turns):
                self.history.append({"role": "user", "content": self._words(self._random, 600)})
                body = json.dumps({"model": "m", "messages": self.history}, ensure_ascii=False).encode()
                async with http.post(url, data=body) as reply:
                    said = (await reply.json())["choices"][0]["message"]["content"]
                self.history.append({"role": "assistant", "content": said})

    def size(self) -> int:
        """Bytes of its distinct messages."""
        return sum(len(one.encode()) for one in {json.dumps(m, ensure_ascii=False) for m in self.history})


def sizes(engine: Engine) -> tuple[int, int]:
    """Bytes of the records, and of the search index: all files or relations whole."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            file = file_of(connection)
            with closing(sqlite3.connect(index_file(file), timeout=10)) as index:
                index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return file.stat().st_size, index_file(file).stat().st_size
        # Not the whole database: PostgreSQL's own statistics of the tables grow when it likes.
        own = "SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables"
        by_table = {str(row[0]): int(row[1]) for row in connection.execute(text(own))}
        search = by_table.pop("state_texts")
        return sum(by_table.values()), search


def vacuumed(engine: Engine) -> None:
    """On PostgreSQL, what autovacuum does some minute: it makes each table's maps, 32 KB at once."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM"))


async def added(folder: Path, told: dict[str, Any], run: Run, turns: int) -> None:
    """The run through a proxy of its own, and everything indexed when that has ended, at full speed."""
    async with ProxyProcess(folder, told) as proxy:
        await run.go(proxy.url, turns)
        await proxy.settled()
    indexer = Indexer(proxy.engine, "growth", lambda: time.time_ns() // 1000)
    assert (await asyncio.to_thread(indexer.catch_up, 60)).records == 0
    proxy.engine.dispose()


MOST = {
    "sqlite": {"prose": (1.7, 2.35), "noise": (1.95, 2.85)},
    "postgresql": {"prose": (1.9, 2.55), "noise": (2.35, 3.3)},
}
"""Times its messages that a run takes: its records, and with the search index. What of is said in
docs/design/records-retention.md."""


@pytest.mark.parametrize("words", [prose, noise])
async def test_a_run_that_resends_its_history_adds_its_messages_not_their_repetitions(
    store: str, words: Text, tmp_path: Path
) -> None:
    random_ = random.Random(7)
    turns = [{"when": {"turn": n}, "text": words(random_, 400)} for n in range(10 + TURNS)]
    async with running(parse_script("default: " + json.dumps({"turns": turns}))) as upstream:
        told = config(upstream.base_url, store=store)
        await added(tmp_path, told, Run("earlier", words, random_), TURNS)
        engine = open_engine(store)
        vacuumed(engine)
        before = sizes(engine)
        run = Run("long", words, random_)
        await added(tmp_path, told, run, TURNS)
        after = sizes(engine)
        engine.dispose()
    size = run.size()
    records, search = (after[0] - before[0]) / size, (after[1] - before[1]) / size
    print(f"{words.__name__}: records {records:.2f}, search {search:.2f} of {size:,} bytes")  # noqa: T201
    assert size > HISTORY
    most, most_in_all = MOST[store.partition(":")[0].partition("+")[0]][words.__name__]
    assert records < most
    assert records + search < most_in_all
