"""Who was shown content, as it's listed, on a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from llm_proxy.audit.readings import reading_lines
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.content_reads import Place, read_draft
from llm_proxy.records.evidence import Evidence
from llm_proxy.records.runstate import RunKey
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, Clock, writing

pytest_plugins = ["tests.postgres"]


async def fill(engine: Engine) -> None:
    """Seven readings by two writers, five of them in one microsecond."""
    for first in (0, 4):
        async with writing(engine, Clock()) as writer:
            for n in range(first, min(first + 4, 7)):
                draft = read_draft(
                    by=f"ada{n}",
                    place=Place.ADMIN,
                    what="runs show",
                    at_us=NOW + max(0, n - 4),
                    calls=("c1", "c2"),
                    run=RunKey("bot", "run-1"),
                    words="late refund" if n == 3 else "",
                )
                await writer.submit(Job(lambda _, draft=draft: Wrote(None, Evidence(records=(draft,)))))


async def test_readings_are_listed_page_by_page(engine: Engine) -> None:
    await fill(engine)
    with engine.connect() as connection:
        whole = reading_lines(connection, 50)
        assert [one.by for one in whole[:2]] == ["ada6", "ada5"]
        assert sorted(one.by for one in whole) == [f"ada{n}" for n in range(7)]
        paged, before = list[str](), None
        while page := reading_lines(connection, 2, before):
            paged += [one.id for one in page]
            before = page[-1].id
        assert paged == [one.id for one in whole], (
            "readings of one moment are neither left out nor told twice"
        )
        (searched,) = (one for one in whole if one.words)
        assert (searched.words, searched.run_id, searched.call_count, searched.place) == (
            "late refund", "run-1", 2, "admin",
        )  # fmt: skip


@pytest.mark.parametrize("before", ["", "x", "w/1", "w/", "/1", "a/" + "9" * 40, "w/١", "' OR 1=1/1"])
async def test_what_is_no_reading_is_said(engine: Engine, before: str) -> None:
    with engine.connect() as connection, pytest.raises(ValueError, match="no reading"):
        reading_lines(connection, 5, before)


async def test_a_damaged_reading_stands_in_the_list(engine: Engine) -> None:
    await fill(engine)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(
            text("UPDATE records SET body = :body WHERE kind = 'content.read'"), {"body": b"{"}
        )
    with engine.connect() as connection:
        found = reading_lines(connection, 50)
    assert len(found) == 7
    assert {(one.by, one.what) for one in found} == {("", "(damaged: `llm-proxy audit verify` says how)")}
