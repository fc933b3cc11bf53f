"""Engines on either store, what is written to them and read back: shared by the tests of the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, func, select, text

from llm_proxy.archive.calls import call_view
from llm_proxy.records import engine as engine_module
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, RecordKind
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import records
from llm_proxy.records.view import CallView
from tests.stores import NOW, OWN, store

RUN = RunKey("bot", "run-1")
REPLY = (
    b'{"id":"c","model":"m-2","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2}}'
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def engine(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(engine_module, "BUSY_MS", 3_000)
    with store(url) as opened:
        yield opened


def record(number: int, call_id: str | None = None, kind: RecordKind = RecordKind.CALL_CLOSED) -> Draft:
    return Draft(kind, NOW + number, call_id, "run-1", "bot", b'{"n":%d}' % number)


def noting(*drafts: Draft, value: object = None) -> Job:
    return Job(lambda _: Wrote(value, Evidence(records=drafts)))


def count(connection: Connection, table: str) -> int:
    """Rows; of `records` those of what happened."""
    if table == "records":
        return connection.execute(select(func.count()).select_from(records).where(OWN)).scalar_one()
    return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


def view(engine: Engine, id_: str) -> CallView:
    with engine.connect() as connection:
        found = call_view(connection, id_)
    assert found is not None
    return found


def raises(error: Exception) -> Job:
    def then(_found: Found) -> Wrote:
        raise error

    return Job(then)
