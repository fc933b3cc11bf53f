"""`llm-proxy db vacuum`: the space of what was deleted goes back to the disk, and nothing else changes."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from llm_proxy.records.ids import now_us
from llm_proxy.retention.shrinking import SERVING
from tests.unit.test_cli_store import config as config
from tests.unit.test_cli_store import run

pytest_plugins = ["tests.postgres"]


@pytest.fixture
def store(config: Path) -> Path:
    """With much that was deleted, and a search index likewise."""
    assert run("db upgrade", config)[0] == 0
    path = config.parent / "s.db"
    for file in (path, path.with_name("s.db-search")):
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE junk (body BLOB)")
            connection.execute("INSERT INTO junk VALUES (zeroblob(4000000))")
            connection.execute("DELETE FROM junk")
        connection.close()
    return path


def _told(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        told = list(connection.iterdump())
    connection.close()
    return told


def test_space_goes_back_to_the_disk(config: Path, store: Path) -> None:
    told = _told(store)
    status, out, err = run("db vacuum", config, "--json")
    assert status == 0, err
    shrunk = json.loads(out)
    assert shrunk["before"] > 8_000_000
    assert shrunk["after"] < 2_000_000
    files = [file for file in store.parent.iterdir() if file.name.startswith("s.db")]
    assert sum(file.stat().st_size for file in files) == shrunk["after"]
    assert _told(store) == told
    assert run("db vacuum", config)[1].endswith(" MB now.\n")


def test_not_while_a_proxy_serves_it(config: Path, store: Path) -> None:
    with sqlite3.connect(store) as connection:
        later = now_us() + 3_600_000_000
        connection.execute("INSERT INTO state_leases VALUES (?, 'a', ?)", (SERVING, later))
    connection.close()
    status, out, err = run("db vacuum", config)
    assert (status, out) == (2, "")
    assert "A proxy serves this store" in err
    assert store.stat().st_size > 4_000_000


def test_a_store_that_another_writes_to_stays_as_it_is(
    config: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_proxy.retention.shrinking._BUSY_S", 0.1)
    other = sqlite3.connect(store, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    status, _, err = run("db vacuum", config)
    other.close()
    assert status == 2
    assert "can't be written anew: database is locked" in err


def test_without_a_store_there_is_nothing_to_do(config: Path) -> None:
    assert run("db vacuum", config)[:2] == (1, "")
    assert not (config.parent / "s.db").exists()


def test_postgresql_does_it_by_itself(config: Path, postgres_url: str) -> None:
    config.write_text(config.read_text().replace(f"sqlite:///{config.parent}/s.db", postgres_url))
    assert run("db upgrade", config)[0] == 0
    status, _, err = run("db vacuum", config)
    assert status == 2
    assert "VACUUM FULL" in err
