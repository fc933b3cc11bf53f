"""`python -m bench.search`: full text over a million texts, and a long run's timeline, on both stores.

The store is filled without a proxy, with rows as it would have written them: calls with a prompt, a reply,
reasoning and a judged tool call, made of words that are as common as words are (Zipf), over 90 days. The
index is written by its own code, 256 calls at a time. What is measured is what `calls search` and `runs show`
do in a process that is up: the search, and reading the calls around each hit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, text

from bench.search_calls import DAYS, Words, calls_of, fill_runs, phrases, rows_of
from llm_proxy.admin.reading import find_run
from llm_proxy.admin.run_told import run_steps
from llm_proxy.archive.search import SearchWish, search
from llm_proxy.archive.search_documents import Document, NothingSeen, documents
from llm_proxy.archive.search_index import file_of, identity_of
from llm_proxy.archive.search_postgres import PostgresIndex
from llm_proxy.archive.search_sqlite import SqliteIndex, index_file
from llm_proxy.archive.search_store import Move
from llm_proxy.records.blobs import KEPT, ensure_salt
from llm_proxy.records.ids import now_us, writer_id
from llm_proxy.records.tables import blobs, calls, records, runs, writers
from tests.postgres import running_postgres
from tests.stores import store as opened

TARGET_S = 1.0
AT_ONCE = 256
ROUNDS = 5


class Measured(NamedTuple):
    """`seconds`: the median and the longest of each question."""

    texts: int
    build_s: float
    index_bytes: int
    store_bytes: int
    seconds: dict[str, tuple[float, float]]


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m bench.search", description=__doc__)
    options.add_argument("--texts", type=int, default=1_000_000, help="texts in the store (1,000,000)")
    options.add_argument("--only", choices=("sqlite", "postgresql"))
    options.add_argument("--out", type=Path, help="write every figure there, as JSON")
    given = options.parse_args()
    figures: dict[str, Measured] = {}
    for kind in ("sqlite", "postgresql"):
        if given.only in (None, kind):
            with store(kind) as engine:
                figures[kind] = measured(engine, given.texts)
    if given.out is not None:
        given.out.write_text(json.dumps({name: f._asdict() for name, f in figures.items()}, indent=2) + "\n")
    worst = max(most for found in figures.values() for _, most in found.seconds.values())
    print(f"slowest: {worst:.3f} s, target {TARGET_S:g} s: {'met' if worst < TARGET_S else 'MISSED'}")
    sys.exit(0 if worst < TARGET_S else 1)


@contextmanager
def store(kind: str) -> Generator[Engine]:
    with TemporaryDirectory(prefix="bench-search-") as folder:
        if kind == "sqlite":
            with opened(f"sqlite:///{folder}/store.db") as engine:
                yield engine
            return
        with (
            running_postgres(Path(folder) / "data") as server,
            opened(server.render_as_string(hide_password=False)) as engine,
        ):
            yield engine


def measured(engine: Engine, texts: int) -> Measured:
    started = time.perf_counter()
    words = Words()
    count = build(engine, words, texts)
    took = time.perf_counter() - started
    with engine.connect() as connection:
        size, store_size = sizes(connection)
    name = engine.dialect.name
    print(f"{name}: {count:,} texts built in {took:.0f} s; index {size / 1e6:,.0f} MB", flush=True)
    told: dict[str, tuple[float, float]] = {}
    for what, work in questions(engine, words):
        times, found = list[float](), 0
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            found = work()
            times.append(time.perf_counter() - begun)
        told[what] = (statistics.median(times), max(times))
        p50, most = told[what]
        print(f"  {what:<52} {found:>6} found  p50 {p50:7.3f} s  max {most:7.3f} s", flush=True)
    return Measured(count, took, size, store_size, told)


def build(engine: Engine, words: Words, texts: int) -> int:
    writer, count, number = writer_id(now_us()), 0, 0
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        salt = {"writer": writer, "started_us": 0, "seen_us": 0, "head_seq": 0, "head_hash": b"\0" * 32}
        ensure_salt(connection, KEPT)
        connection.execute(writers.insert().values(**salt, exported_seq=0))
    with adding(engine) as add:
        at = 0
        for some in calls_of(words, texts, AT_ONCE):
            found = [one for view in some for one in documents(view, NothingSeen())]
            with engine.connect().execution_options(writes=True) as connection, connection.begin():
                rows = [rows_of(view, writer, number + n) for n, view in enumerate(some)]
                connection.execute(records.insert(), [row for one in rows for row in one.records])
                connection.execute(blobs.insert(), [row for one in rows for row in one.blobs])
                connection.execute(calls.insert(), [one.call for one in rows])
            number += len(some)
            add(found, Move(writer, at, number))
            at = number
            count += len(found)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        fill_runs(connection, runs, calls)
        connection.execute(text("UPDATE state_writers SET head_seq = :n"), {"n": number})
    return count


@contextmanager
def adding(engine: Engine) -> Generator[Callable[[Sequence[Document], Move], None]]:
    if engine.dialect.name == "postgresql":

        def add(found: Sequence[Document], move: Move) -> None:
            with engine.begin() as connection:
                PostgresIndex(connection).add(found, move)

        yield add
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE state_texts"))
        return
    with engine.connect() as connection:
        index = SqliteIndex.open(file_of(connection), identity_of(connection))
    try:
        yield index.add
    finally:
        index.close()


def sizes(connection: Connection) -> tuple[int, int]:
    if connection.dialect.name == "postgresql":
        index = connection.execute(text("SELECT pg_total_relation_size('state_texts')")).scalar_one()
        whole = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
        return index, whole - index
    file = file_of(connection)
    return index_file(file).stat().st_size, file.stat().st_size


def questions(engine: Engine, words: Words) -> Iterator[tuple[str, Callable[[], int]]]:
    rare, common, middle = words.by_rank(40_000), words.by_rank(1), words.by_rank(300)
    second = words.by_rank(2)
    there, nowhere = phrases(words)

    def asking(what: str, **more: Any) -> Callable[[], int]:
        def ask() -> int:
            with engine.connect() as connection:
                found = search(connection, SearchWish(text=what, **more))
                assert found.back_to_us is None, "time ran out"
                return len(found.hits)

        return ask

    oldest, day = now_us() - DAYS * 86_400_000_000, 86_400_000_000
    yield "a rare word", asking(rare)
    yield "a common word", asking(common)
    yield "two common words", asking(f"{common} {second}")
    yield "a word between", asking(middle)
    yield "a common word without another", asking(f"{common} -{second}")
    yield "a phrase", asking(f'"{there}"')
    yield "a phrase of common words that is rare", asking(f'"{nowhere}"')
    yield "a beginning", asking(f"{middle[:3]}*")
    yield "a common word, of an agent with few calls", asking(common, agent="agent-49")
    yield "a common word, of one run", asking(common, run="run-17")
    yield "a common word, of no such run", asking(common, run="run-none")
    yield "a common word, a denied tool", asking(common, tool="tool-39", decision="deny")
    yield "a common word, in reasoning, of a rule", asking(common, within=("reasoning",), rule="rule-9")
    yield "a common word, in the first three days", asking(common, until_us=oldest + 3 * day)
    yield "two words that never meet", asking(f"{rare} {words.by_rank(40_001)}")

    def shown() -> int:
        with engine.connect() as connection:
            return len(list(run_steps(connection, find_run(connection, "long-run", None), 1_000)))

    yield "runs show: 50 turns that resend 100 KB", shown


if __name__ == "__main__":
    main()
