"""What processes on one store measured of their token counts adds up, over SQLite and a real PostgreSQL."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Never

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from llm_proxy.counting.error import FADES, MOST_KEYS, Measured, TokenErrors, merged
from llm_proxy.counting.tokenizers import ONE
from llm_proxy.records import error_rows
from llm_proxy.records.tables import token_errors
from llm_proxy.sharing.token_errors import SharedTokenErrors
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, outage

pytest_plugins = ["tests.postgres"]

KEY = "openai/m"


def add(engine: Engine, **rows: Measured) -> None:
    with engine.begin() as connection:
        values = {key: (one.samples, one.mean, one.worst) for key, one in rows.items()}
        error_rows.add(connection, values, NOW, FADES)


def stored(engine: Engine) -> dict[str, Measured]:
    with engine.connect() as connection:
        return {key: Measured(*row) for key, row in error_rows.read(connection, MOST_KEYS).items()}


class Process:
    def __init__(self, engine: Engine) -> None:
        self.errors = TokenErrors()
        self.shared = SharedTokenErrors(engine, self.errors, lambda: NOW)


def test_the_store_adds_rows_as_the_process_does(engine: Engine) -> None:
    first, second = Measured(3, 1_100_000, 1_400_000), Measured(5, 1_050_000, 1_200_000)
    add(engine, a=first, b=second)
    assert stored(engine) == {"a": first, "b": second}
    add(engine, a=second, c=first)
    assert stored(engine) == {"a": merged(first, second), "b": second, "c": first}
    add(engine, a=Measured(FADES * 3, 900_000, 950_000))
    assert stored(engine)["a"] == merged(merged(first, second), Measured(FADES * 3, 900_000, 950_000))
    with engine.connect() as connection:
        assert set(connection.scalars(select(token_errors.c.changed_us))) == {NOW}


def test_many_at_once_lose_no_answer(engine: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        rows = [
            {f"m{n % 3}": Measured(1, ONE + n, ONE + n), "all": Measured(1, ONE, ONE + n)} for n in range(24)
        ]
        list(pool.map(lambda row: add(engine, **row), rows))
    found = stored(engine)
    assert {key: one.samples for key, one in found.items()} == {"m0": 8, "m1": 8, "m2": 8, "all": 24}
    assert found["all"].mean == ONE


async def test_what_one_process_measured_raises_the_other_ones_holds(engine: Engine) -> None:
    one, other = Process(engine), Process(engine)
    one.errors.observe(KEY, 1_000, 1_300)
    assert other.errors.raised(KEY, 1_000, ONE) == 1_000
    await one.shared.step()
    await other.shared.step()
    assert other.errors.raised(KEY, 1_000, ONE) == one.errors.raised(KEY, 1_000, ONE) == 1_300
    for process in (one, other):
        process.errors.observe(KEY, 1_000, 1_100)
        await process.shared.step()
    assert stored(engine)[KEY].samples == 3
    started = Process(engine)
    await started.shared.step()
    assert started.errors.raised(KEY, 1_000, ONE) > 1_290


async def test_what_is_new_is_written_when_the_worker_stops(engine: Engine) -> None:
    process = Process(engine)
    task = asyncio.create_task(process.shared.run())
    await asyncio.sleep(0)
    process.errors.observe(KEY, 1_000, 1_300)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert stored(engine)[KEY] == Measured(1, 1_300_000, 1_300_000)


async def test_without_the_store_what_was_measured_waits(engine: Engine, url: str) -> None:
    process = Process(engine)
    process.errors.observe(KEY, 1_000, 1_300)
    with capture_logs() as logs, outage(url, engine):
        await process.shared.step()
    assert [entry["event"] for entry in logs] == ["measured token counts wait for the store"]
    assert process.errors.raised(KEY, 1_000, ONE) == 1_300
    await process.shared.step()
    assert stored(engine)[KEY].samples == 1


async def test_what_is_written_and_can_not_be_read_again_is_not_written_twice(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(engine)
    process.errors.observe(KEY, 1_000, 1_300)

    def fails(*_: object) -> Never:
        raise OperationalError("SELECT", None, Exception("no route"))

    with monkeypatch.context() as patch:
        patch.setattr(error_rows, "read", fails)
        await process.shared.step()
    await process.shared.step()
    assert stored(engine)[KEY].samples == 1


async def test_as_many_models_as_are_kept_are_written_at_once(engine: Engine) -> None:
    process = Process(engine)
    for number in range(MOST_KEYS + 5):
        process.errors.observe(f"openai/{number}", 1_000, 1_100)
    await process.shared.step()
    assert len(stored(engine)) == MOST_KEYS
    process.errors.observe("openai/last", 1_000, 1_300)
    await process.shared.step()
    with engine.connect() as connection:
        assert len(error_rows.read(connection, 7)) == 7
        assert connection.scalar(select(func.count()).select_from(token_errors)) == MOST_KEYS + 1


def test_a_key_that_no_column_holds_is_left_out(engine: Engine) -> None:
    add(engine, **{"x" * 257: Measured(1, ONE, ONE)})
    add(engine, **{"x" * 256: Measured(1, ONE, ONE)})
    assert [len(key) for key in stored(engine)] == [256]
