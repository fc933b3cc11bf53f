"""Thousands of random single changes of a store: each is found, and the row is named."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from tests.contract.audited import fill, verified
from tests.stores import store

CHANGES = 3_000
RECORD = ("kind", "at_us", "call_id", "run_id", "agent_id", "body", "hash")
BLOB = ("epoch", "codec", "size", "data")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with store(f"sqlite:///{tmp_path}/store.db") as opened:
        yield opened


def other(old: Any, chance: random.Random) -> Any:
    """A value that differs: a flipped bit, another length, another type, nothing."""
    if old is None:
        return chance.choice(["x", "", 5, b"x"])
    if isinstance(old, int):
        return chance.choice([old ^ 1 << chance.randrange(40), -old - 1, old + 0.5, str(old) + "x"])
    raw = bytearray(old if isinstance(old, bytes) else old.encode())
    way = chance.randrange(4)
    if way == 0 or not raw:
        return raw + b"\0" if isinstance(old, bytes) else old + "\0"
    if way == 1:
        return bytes(raw[:-1]) if isinstance(old, bytes) else old[:-1]
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    return bytes(raw)


def change(connection: Connection, chance: random.Random) -> tuple[str, str]:
    """Makes one, and says of which table and row."""
    if chance.random() < 0.6:
        key = connection.execute(text("SELECT writer, seq FROM records ORDER BY random() LIMIT 1")).one()
        table, where, values = "records", "writer = :w AND seq = :s", {"w": key[0], "s": key[1]}
        column, row = chance.choice(RECORD), f"{key[0]}/{key[1]}"
    else:
        id_ = connection.execute(text("SELECT id FROM blobs ORDER BY random() LIMIT 1")).scalar_one()
        table, where, values = "blobs", "id = :id", {"id": id_}
        column, row = chance.choice(BLOB), id_.hex()
    if chance.random() < 0.1:
        connection.execute(text(f"DELETE FROM {table} WHERE {where}"), values)
    else:
        old = connection.execute(text(f"SELECT {column} FROM {table} WHERE {where}"), values).scalar_one()
        sql = f"UPDATE OR REPLACE {table} SET {column} = :new WHERE {where}"
        connection.execute(text(sql), values | {"new": other(old, chance)})
    return table, row


@pytest.mark.soak
async def test_no_random_change_passes(engine: Engine) -> None:
    await fill(engine)
    chance = random.Random(7)
    with engine.connect() as connection:
        for number in range(CHANGES):
            table, row = change(connection, chance)
            report = verified(connection)
            named = {(finding.table, finding.row) for finding in report.findings}
            assert not report.intact, (number, table, row)
            assert (table, row) in named, (number, table, row, report.findings)
            connection.rollback()
        assert verified(connection).intact
