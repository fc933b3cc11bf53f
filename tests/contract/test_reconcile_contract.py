"""Every book that is wrong by one micro-dollar, one token or one row is found, over both stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import pytest
from sqlalchemy import URL, Connection, Engine, text

from budgets import Expire
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.spend.drift import Drift, Reconciled
from llm_proxy.spend.reconcile import reconcile
from tests.booked import DAY_US, Books, Called
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, store, writing

pytest_plugins = ["tests.postgres"]


class Kept(NamedTuple):
    engine: Engine
    called: list[Called]


def _compare(engine: Engine, since_us: int | None = None) -> Reconciled:
    with engine.connect() as connection:
        return reconcile(connection, since_us, NOW)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """Forty calls that ended and two that are open, in a store that no test changes."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('kept') / 'store.db'}"
        else:
            from tests.postgres import fresh_database  # noqa: PLC0415 (pytest must load it first, as a plugin)

            server: URL = request.getfixturevalue("postgres_server")
            url = stack.enter_context(fresh_database(server)).render_as_string(hide_password=False)
        engine = stack.enter_context(store(url))
        yield Kept(engine, asyncio.run(_written(engine)))


async def _written(engine: Engine) -> list[Called]:
    async with writing(engine) as writer:
        books = Books(engine, writer, seed=3)
        await books.write(40)
        for _ in range(2):
            await books.open(await books.exchange())
    return books.called


@contextmanager
def _broken(engine: Engine, *breaks: Callable[[Connection], None]) -> Generator[Connection]:
    """A connection to books that are wrong until it is closed."""
    with engine.connect().execution_options(writes=True) as connection:
        transaction = connection.begin()
        for each in breaks:
            each(connection)
        yield connection
        transaction.rollback()


def test_books_that_agree_are_in_balance(kept: Kept) -> None:
    found = _compare(kept.engine)
    assert found.drifts == ()
    assert (found.calls, found.open_calls, found.holds) == (len(kept.called), 2, 2)
    assert found.micro_usd == sum(call.micro_usd for call in kept.called) > 0
    assert found.tokens == sum(call.input + call.output for call in kept.called)
    assert found.counters is not None
    assert found.counters > 20


def _sql(statement: str) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        assert connection.execute(text(statement)).rowcount == 1, statement

    return run


def _one(table: str, change: str, where: str = "TRUE", key: str = "id") -> Callable[[Connection], None]:
    """One row of a table changed."""
    first = f"SELECT min({key}) FROM {table} WHERE {where}"
    return _sql(f"UPDATE {table} SET {change} WHERE {key} = ({first})")


def _row(table: str, change: str, column: str = "requests") -> Callable[[Connection], None]:
    """One row of the sums, which have two key columns, changed or deleted."""
    first = f"SELECT day, id FROM {table} WHERE {column} > 0 ORDER BY day, id LIMIT 1"
    return _sql(f"{change} WHERE (day, id) = ({first})")


def _record(change: Callable[[bytes], bytes], kind: str) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        query = text("SELECT writer, seq, body FROM records WHERE kind = :kind ORDER BY seq DESC LIMIT 1")
        writer, seq, body = connection.execute(query, {"kind": kind}).one()
        changed = change(bytes(body))
        assert changed != bytes(body)
        update = text("UPDATE records SET body = :body WHERE writer = :writer AND seq = :seq")
        connection.execute(update, {"body": changed, "writer": writer, "seq": seq})

    return run


OK = "status = 'ok' AND micro_usd > 0"
BREAKS: dict[str, tuple[str, Callable[[Connection], None]]] = {
    "call-money": ("calls", _one("state_calls", "micro_usd = micro_usd + 1", OK)),
    "call-input": ("calls", _one("state_calls", "input_tokens = input_tokens - 1", OK)),
    "call-cached": ("calls", _one("state_calls", "cached_tokens = cached_tokens + 1", OK)),
    "call-lost": ("calls", _one("state_calls", "lost_micro_usd = lost_micro_usd + 1", OK)),
    "call-label": (
        "calls",
        _one("state_calls", "cost_label = 'unpriced'", f"{OK} AND cost_label <> 'unpriced'"),
    ),
    "call-status": ("calls", _one("state_calls", "status = 'failed'", OK)),
    "call-open": ("calls", _one("state_calls", "status = 'ok'", "status = 'open'")),
    "call-gone": (
        "calls",
        _sql(f"DELETE FROM state_calls WHERE id = (SELECT min(id) FROM state_calls WHERE {OK})"),
    ),
    "sums-money": ("daily sums", _row("state_spend", "UPDATE state_spend SET micro_usd = micro_usd + 1")),
    "sums-refused": ("daily sums", _row("state_spend", "UPDATE state_spend SET refused = refused + 1")),
    "sums-moved": ("daily sums", _row("state_spend", "UPDATE state_spend SET agent_id = 'bot-x'")),
    "sums-day": ("daily sums", _row("state_spend", "UPDATE state_spend SET day = day - 400")),
    "sums-gone": ("daily sums", _row("state_spend", "DELETE FROM state_spend")),
    "tools-money": (
        "tool sums",
        _row("state_tool_spend", "UPDATE state_tool_spend SET micro_usd = micro_usd + 1"),
    ),
    "tools-denied": (
        "tool sums",
        _row("state_tool_spend", "UPDATE state_tool_spend SET denied = denied + 1"),
    ),
    "tools-gone": ("tool sums", _row("state_tool_spend", "DELETE FROM state_tool_spend")),
    "counter-money": (
        "ledger",
        _sql("UPDATE state_counters SET used_micro_usd = used_micro_usd - 1 WHERE key = 'all|lifetime'"),
    ),
    "counter-requests": (
        "ledger",
        _one("state_counters", "used_requests = used_requests + 1", "key LIKE 'day|%'", "key"),
    ),
    "counter-writes": (
        "ledger",
        _one("state_counters", "used_writes = used_writes + 1", "key LIKE 'run|%'", "key"),
    ),
    "counter-held": (
        "ledger",
        _sql("UPDATE state_counters SET held_tokens = held_tokens + 1 WHERE key = 'all|lifetime'"),
    ),
    "counter-concurrency": (
        "ledger",
        _sql("UPDATE state_counters SET held_concurrency = held_concurrency - 1 WHERE key = 'all|lifetime'"),
    ),
    "counter-gone": ("ledger", _sql("DELETE FROM state_counters WHERE key = 'all|lifetime'")),
    "counter-more": (
        "ledger",
        _sql("INSERT INTO state_counters (key, used_tokens) VALUES ('x|lifetime', 1)"),
    ),
    "hold-gone": (
        "ledger",
        _sql("DELETE FROM state_holds WHERE id = (SELECT min(id) FROM state_holds WHERE expired_us IS NULL)"),
    ),
    "record-money": (
        "calls",
        _record(lambda body: body.replace(b'"cost_micro_usd":', b'"cost_micro_usd":1'), "call.closed"),
    ),
    "record-unreadable": ("records", _record(lambda body: body[:-1], "call.closed")),
    "record-verdict": (
        "tool sums",
        _record(lambda body: body.replace(b'"tool":"', b'"tool":"x'), "call.verdicts"),
    ),
    "record-gone": (
        "calls",
        _sql("DELETE FROM records WHERE seq = (SELECT max(seq) FROM records WHERE kind = 'call.closed')"),
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_book_that_is_wrong_is_named(kept: Kept, name: str) -> None:
    book, break_it = BREAKS[name]
    with _broken(kept.engine, break_it) as connection:
        found = reconcile(connection, None, NOW)
    assert book in {drift.book for drift in found.drifts}, found.drifts
    assert found.drift_count == len(found.drifts) <= 60


def test_a_drift_says_where_and_how_much(kept: Kept) -> None:
    with _broken(kept.engine, BREAKS["counter-money"][1]) as connection:
        query = text("SELECT used_micro_usd FROM state_counters WHERE key = 'all|lifetime'")
        used = connection.execute(query).scalar_one()
        found = reconcile(connection, None, NOW)
    assert found.drifts == (Drift("ledger", "counter all|lifetime", "used micro_usd", used + 1, used),)


def test_a_time_leaves_out_older_calls_and_the_ledger(kept: Kept) -> None:
    midnight = NOW - NOW % DAY_US - DAY_US
    within = [call for call in kept.called if call.started_us >= midnight]
    with _broken(kept.engine, BREAKS["sums-money"][1], BREAKS["counter-money"][1]) as connection:
        found = reconcile(connection, midnight, NOW)
    assert found.drifts == ()
    assert (found.counters, found.holds) == (None, None)
    assert (found.calls, found.micro_usd) == (len(within), sum(call.micro_usd for call in within))


def test_more_drifts_than_are_shown_are_counted(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_proxy.spend.drift.MOST_SHOWN", 3)

    def all_of_them(connection: Connection) -> None:
        connection.execute(text("UPDATE state_calls SET micro_usd = micro_usd + 1 WHERE status <> 'open'"))

    with _broken(kept.engine, all_of_them) as connection:
        found = reconcile(connection, None, NOW)
    assert len(found.drifts) == 3
    assert found.drift_count > len(kept.called)


def test_counters_of_spans_that_are_over_may_be_cleared_away(kept: Kept) -> None:
    def clear(connection: Connection) -> None:
        gone = text("DELETE FROM state_counters WHERE key LIKE 'user|%' AND held_tokens = 0")
        assert connection.execute(gone).rowcount > 3

    with _broken(kept.engine, clear) as connection:
        assert reconcile(connection, None, NOW + DAY_US).drifts == ()


async def test_a_hold_that_expired_under_an_open_call_was_charged(engine: Engine) -> None:
    async with writing(engine) as writer:
        books = Books(engine, writer, seed=4)
        await books.open(await books.exchange())
        await writer.submit(Job(lambda _: Wrote(None), ops=(Expire(NOW + 2 * DAY_US),)))
    found = _compare(engine)
    assert (found.drifts, found.open_calls, found.holds) == ((), 1, 0)


def test_an_empty_store_is_in_balance(engine: Engine) -> None:
    found = _compare(engine)
    assert (found.drifts, found.calls, found.days) == ((), 0, 0)
