"""A PostgreSQL server that doesn't answer is given up by the client, as soon as whoever waits is told."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic, sleep

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from llm_proxy.records import engine as of_records
from llm_proxy.records.engine import hurried, open_engine, unhurried, writing
from llm_proxy.records.faults import Fault, fault_of

pytest_plugins = ["tests.postgres"]

SLOW = text("SELECT pg_sleep(1.2)")


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = open_engine(postgres_url, patience_s=0.4)
    yield engine
    engine.dispose()


def _gives_up(connection: Connection) -> None:
    began = monotonic()
    with pytest.raises(OperationalError, match=r"no answer within 0\.4 s") as raised:
        connection.execute(SLOW)
    assert 0.4 <= monotonic() - began < 1.1
    assert fault_of(raised.value) is Fault.DOWN
    assert connection.invalidated


def test_an_answer_that_does_not_come_is_given_up(engine: Engine) -> None:
    with engine.connect() as connection:
        _gives_up(connection)
        connection.rollback()
        assert connection.execute(text("SELECT 1")).scalar() == 1, "it connects anew"


def test_who_needs_longer_may_wait_and_who_serves_calls_may_not(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unhurried(engine.connect()) as connection:
        connection.execute(SLOW)
    with engine.connect() as connection:  # the same one, from the pool: it has no more patience than the rest
        _gives_up(connection)
    monkeypatch.setattr(of_records, "ANSWER_S", 0.4)
    with unhurried(engine.connect()) as patient, hurried(engine.connect()) as connection:
        _gives_up(connection)
        patient.execute(SLOW)


def test_a_writer_that_stands_still_loses_its_transaction(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_records, "_IDLE_MS", 200)
    engine = open_engine(postgres_url)
    try:
        with writing(engine) as connection:
            transaction = connection.begin()
            connection.execute(text("SELECT 1"))
            sleep(0.6)
            with pytest.raises(DBAPIError) as raised:
                connection.execute(text("SELECT 1"))
            transaction.close()
        assert fault_of(raised.value) is Fault.DOWN
    finally:
        engine.dispose()
