"""Several that write to one SQLite file: each gets its turn, however busy the others are."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from llm_proxy.records import engine as engine_module
from llm_proxy.records.engine import open_engine

HELD_S, GAP_S = 0.025, 0.002
"""A transaction of a busy writer, and the time until its next one."""
TURNS = 10
MOST_S = 4


@contextlib.contextmanager
def _busy(file: Path, held_s: float = HELD_S) -> Generator[None]:
    over, begun = threading.Event(), threading.Event()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as other:
            while not over.is_set():
                other.execute("BEGIN IMMEDIATE")
                begun.set()
                over.wait(held_s)
                other.execute("COMMIT")
                time.sleep(GAP_S)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(10)
        yield
    finally:
        over.set()
        writer.join()


def test_a_writer_gets_its_turn_beside_one_that_never_pauses(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 's.db'}")
    with engine.connect().execution_options(writes=True) as connection, _busy(tmp_path / "s.db"):
        waited: list[float] = []
        for _ in range(TURNS):
            time.sleep(HELD_S / 2)  # so that it comes when the lock is held
            began = time.monotonic()
            with connection.begin():
                waited.append(time.monotonic() - began)
        assert sum(waited) < MOST_S, [round(each, 3) for each in waited]


def test_one_that_holds_the_lock_is_waited_for_so_long_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "BUSY_MS", 300)
    engine = open_engine(f"sqlite:///{tmp_path / 's.db'}")
    with engine.connect().execution_options(writes=True) as connection, _busy(tmp_path / "s.db", 30):
        began = time.monotonic()
        with pytest.raises(OperationalError, match="database is locked"), connection.begin():
            pass
        assert 0.25 < time.monotonic() - began < 10
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.exec_driver_sql("CREATE TABLE t (x)")
