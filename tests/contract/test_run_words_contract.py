"""Runs by words that were said in them, over many days, page by page, on either store."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from llm_proxy.archive import run_words, search_waiting
from llm_proxy.archive.run_filter import RunFilter
from llm_proxy.archive.run_words import TooLong, find_runs
from llm_proxy.archive.search_query import BadSearch
from llm_proxy.records.blobs import DAY_US
from tests.contract.searched import held, index, told, user
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import Clock, Desk, body_of, writing

pytest_plugins = ["tests.postgres"]

SAID = [
    (0, "long", "Good morning."),
    (0, "first", "apples"),
    (1, "second", "apples and pears"),
    (1, "quiet", "plums"),
    (3, "third", "pears"),
    (3, "long", "At last: apples."),
    (4, "fourth", "apples apples"),
]
"""By day, run and what was said."""


@pytest.fixture(params=[search_waiting.MOST, 0], ids=["waiting", "indexed"], autouse=True)
def most_waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_waiting, "MOST", request.param)


async def _filled(engine: Engine) -> Clock:
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk, start = Desk(writer, clock), clock.now
        for day, run, text in SAID:
            clock.now = max(clock.now, start + day * DAY_US)
            await held(desk, told("ok"), user(text), run=run)
    index(engine, clock)
    return clock


def _paged(engine: Engine, limit: int, **wanted: object) -> list[str]:
    """Runs in order, `limit` at a time."""
    found: list[str] = []
    before = None
    while True:
        with engine.connect() as connection:
            rows = find_runs(connection, RunFilter(**wanted, before=before), limit)  # pyright: ignore[reportArgumentType]
        found += [row.run_id for row in rows]
        if len(rows) < limit:
            return found
        before = rows[-1].started_us, rows[-1].run_id


@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_runs_are_found_by_their_words_in_order(engine: Engine, limit: int) -> None:
    await _filled(engine)
    assert _paged(engine, limit, words="apples") == ["fourth", "second", "first", "long"]
    assert _paged(engine, limit, words="pears") == ["third", "second"]
    assert _paged(engine, limit, words="apples pears") == ["second"]
    assert _paged(engine, limit, words="apples -pears") == ["fourth", "first", "long"]
    assert _paged(engine, limit, words='"at last"') == ["long"]
    assert _paged(engine, limit, words="nobody") == []
    assert _paged(engine, limit) == ["fourth", "third", "quiet", "second", "first", "long"]


async def test_more_runs_than_a_statement_names_are_looked_for_in_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _filled(engine)
    monkeypatch.setattr(run_words, "_NAMED", 1)
    assert _paged(engine, 2, words="apples") == ["fourth", "second", "first", "long"]
    now, conditions = [0.0], run_words.conditions

    def slowly(wanted: RunFilter) -> Any:
        now[0] = run_words.SECONDS + 1
        return conditions(wanted)

    monkeypatch.setattr(run_words, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(run_words, "conditions", slowly)
    with pytest.raises(TooLong):
        _paged(engine, 1, words="apples")


async def test_a_run_is_found_by_a_call_that_came_before_it_began_and_before_midnight(engine: Engine) -> None:
    """Its body took long to come: another call was let through before."""
    clock = Clock()
    midnight = clock.now // DAY_US * DAY_US + DAY_US
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        clock.now = midnight - 60_000_000
        slow = await desk.read(body_of(user("apples")), "at midnight")
        clock.now = midnight
        await held(desk, told("ok"), user("plums"), run="at midnight")
        await desk.admit(slow)
        await desk.close(slow)
        await held(desk, told("ok"), user("pears"), run="after it")
    index(engine, clock)
    assert _paged(engine, 1, words="apples") == ["at midnight"]
    assert _paged(engine, 1, words="apples", since_us=midnight) == ["at midnight"]
    assert _paged(engine, 1, words="pears") == ["after it"]


async def test_no_more_days_are_searched_than_were_asked_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = await _filled(engine)
    today = clock.now // DAY_US
    spans: list[tuple[int, int]] = []
    of_span: Any = run_words._of_span  # pyright: ignore[reportPrivateUsage]

    def noted(index: Any, asked: Any, span: tuple[int, int], end: float) -> Any:
        spans.append(span)
        return of_span(index, asked, span, end)

    monkeypatch.setattr(run_words, "_of_span", noted)
    assert _paged(engine, 50, words="apples", since_us=today * DAY_US + DAY_US // 4) == ["fourth"]
    assert spans == [(today, today)]


async def test_words_go_with_other_filters(engine: Engine) -> None:
    clock = await _filled(engine)
    day = clock.now - 3 * DAY_US - DAY_US // 2
    assert _paged(engine, 50, words="apples", run="second") == ["second"]
    assert _paged(engine, 50, words="apples", since_us=day) == ["fourth", "second"]
    assert _paged(engine, 50, words="apples", until_us=day) == ["first", "long"]
    assert _paged(engine, 50, words="apples", user="nobody") == []
    assert _paged(engine, 50, words="apples", rule="none") == []
    assert _paged(engine, 50, words="apples", min_micro_usd=10**12) == []


async def test_what_cant_be_looked_for_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _paged(engine, 50, words="apples") == [], "there is no index yet"
    await _filled(engine)
    with pytest.raises(BadSearch):
        _paged(engine, 50, words="-apples")
    monkeypatch.setattr("llm_proxy.archive.run_words.SECONDS", 0.0)
    with pytest.raises(TooLong):
        _paged(engine, 50, words="apples")
