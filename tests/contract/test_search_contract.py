"""Full text search over what was recorded, on a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from sqlalchemy import Engine

from llm_proxy.archive import search_waiting
from llm_proxy.archive.search import BadSearch
from llm_proxy.archive.search_index import delete_texts, file_of
from llm_proxy.archive.search_indexer import Indexer
from llm_proxy.archive.search_sqlite import index_file
from llm_proxy.archive.search_store import Overtaken
from llm_proxy.records.audit_tables import purged
from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.leases import Lease
from llm_proxy.records.runstate import RunKey
from tests.contract.searched import found, held, index, indexer, marked, texts, told, user
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.proxy import until
from tests.stores import Clock, Desk, writing

pytest_plugins = ["tests.postgres"]

THOUGHT = "The customer says crème brûlée is overdue; check policy §7 before any refund."
HISTORY = [user("I want a REFUND for order A-17, please."), {"role": "system", "content": "Be frugal."}]


@pytest.fixture(params=[search_waiting.MOST, 0], ids=["waiting", "indexed"], autouse=True)
def most_waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that wait are found as those are whose words are indexed."""
    monkeypatch.setattr(search_waiting, "MOST", request.param)


async def _conversation(engine: Engine, clock: Clock) -> list[str]:
    """Two calls of one run, the second with the first again, and one of another; their ids."""
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        call = (
            "c1",
            "refund_create",
            {"order": "A-17", "note": "line one\nline two", "to": "ada@example.com"},
        )
        first = await held(desk, told("Let me see.", reasoning=THOUGHT, calls=(call,)), *HISTORY)
        again = [
            *HISTORY,
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "refund_create", "arguments": "{}"}}
                ],
            },
            {
                "role": "tool",
                "tool_call_id": "c1",
                "content": '{"state":"refused","why":"out of\\nwarranty"}',
            },
        ]
        second = await held(desk, told("Sorry, the warranty is over. 返金できません"), *again)
        other = await held(desk, told("refund later"), user("weather?"), run="run-2")
    index(engine, clock)
    return [first.id, second.id, other.id]


async def test_words_phrases_beginnings_and_what_must_not_be_there(engine: Engine) -> None:
    first, second, other = await _conversation(engine, Clock())

    def calls(text: str, **more: object) -> list[tuple[str, str]]:
        return [(hit.row.call_id, hit.row.kind) for hit in found(engine, text, **more).hits]

    assert calls("refund") == [
        (other, "reply"),
        (first, "tool_call"),
        (first, "reasoning"),
        (first, "prompt"),
    ]
    assert calls("refund -later -overdue") == [(first, "tool_call"), (first, "prompt")]
    assert calls('"refund for order"') == [(first, "prompt")]
    assert calls('"order refund"') == []
    assert calls("creme BRULEE") == calls("crème brûlée") == [(first, "reasoning")]
    assert calls("warrant*") == [(second, "reply"), (second, "tool_result")]
    assert calls("warranty state") == [(second, "tool_result")]
    assert calls("ada@example.com") == calls("line two") == [(first, "tool_call")]
    assert calls("返金") == [(second, "reply")]
    assert calls("refund_create") == [(first, "tool_call")]
    assert calls("refund", within=("prompt", "reasoning")) == [(first, "reasoning"), (first, "prompt")]
    assert calls("refund", run="run-2") == [(other, "reply")]
    assert calls("refund", agent="nobody") == calls("refund", tool="nothing") == []
    assert calls("refund", agent="bot", user="ada@example.com", model="m", run="run-1", tool="refund_create")


async def test_a_hit_is_shown_with_the_words_around_it(engine: Engine) -> None:
    await _conversation(engine, Clock())
    hits = found(engine, '"policy 7" refund')
    assert texts(hits) == [THOUGHT]
    assert marked(hits) == [["policy §7", "refund"]]
    assert hits.hits[0].row.run_id == "run-1"
    assert hits.before is None
    assert hits.behind.records == 0


async def test_pages_go_on_where_the_last_one_ended(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        for number in range(7):
            await held(desk, told(f"answer {number}"), user(f"needle {number}"), run=f"run-{number}")
    index(engine, clock)
    seen: list[str] = []
    page = found(engine, "needle", limit=3)
    while True:
        seen += texts(page)
        if page.before is None:
            break
        page = found(engine, "needle", limit=3, before=page.before)
    assert seen == [f"needle {number}" for number in reversed(range(7))]


async def test_what_is_not_indexed_yet_is_told_and_nothing_is_indexed_twice(engine: Engine) -> None:
    clock = Clock()
    ids = await _conversation(engine, clock)
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        await held(desk, told("a late refund"), user("and?"), run="run-9")
        behind = found(engine, "late").behind
        assert behind.records >= 2
        assert behind.oldest_us is not None
        index(engine, clock)
        index(engine, clock)
        assert texts(found(engine, "late")) == ["a late refund", "refund later"][:1]
    assert len(found(engine, "refund").hits) == 5
    assert len(ids) == 3


_HOSTILE = (
    '"unended', "a AND OR NOT", "NEAR(a b)", "col:x", "' OR 1=1 --", "refund' & 'x", "a\0b", "^a $b {c}",
    "*x", "\\'x", "w : refund", '"a" "b" -"c"', "refund\ud800", "%s %(x)s ?", "-a b", "é" * 900, "a:* & !b",
)  # fmt: skip
_NOTHING = ("", "   ", "!!!", "-only", '""', "x" * 1_000_000, "a " * 60, "\0", "\\'")


async def test_no_text_is_a_mistake_in_the_stores_language(engine: Engine) -> None:
    await _conversation(engine, Clock())
    for text in _HOSTILE:
        found(engine, text)
    for text in _NOTHING:
        with pytest.raises(BadSearch):
            found(engine, text)


async def test_phrases_are_told_apart_in_texts_of_any_length(engine: Engine) -> None:
    clock = Clock()
    long = "the cat sat " * 10_000
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        await held(desk, told("ok"), user(f"{long} needle in hay"), run="run-1")
        await held(desk, told("ok"), user(f"{long} hay in needle"), run="run-2")
    index(engine, clock)
    assert [hit.row.run_id for hit in found(engine, '"needle in hay"').hits] == ["run-1"]
    assert [hit.row.run_id for hit in found(engine, 'hay -"needle in"').hits] == ["run-2"]
    assert marked(found(engine, '"needle in hay"')) == [["needle in hay"]]


async def test_days_are_forgotten_but_for_runs_that_are_held(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        await held(desk, told("first secret"), user("tell me"), run="held")
        await held(desk, told("second secret"), user("tell me"), run="let-go")
        day = clock.now // DAY_US
        index(engine, clock)
        clock.now += DAY_US
        await held(desk, told("third secret"), user("tell me"), run="later")
    index(engine, clock)
    assert texts(found(engine, "secret")) == ["third secret", "second secret", "first secret"]
    with engine.begin() as connection:
        assert delete_texts(connection, day, set()) == 0
        gone = delete_texts(connection, day + 1, {RunKey("bot", "held")})
    assert gone == 2
    assert texts(found(engine, "secret")) == ["third secret", "first secret"]
    assert texts(found(engine, "tell", run="held")) == ["tell me"]
    with engine.begin() as connection:
        assert delete_texts(connection, day + 1, set()) == 2
    assert texts(found(engine, "secret")) == ["third secret"]
    index(engine, clock)
    assert texts(found(engine, "secret")) == ["third secret"]


async def test_what_retention_deleted_is_forgotten_by_the_indexer_itself(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        await held(Desk(writer, clock), told("old secret"), user("tell me"))
    index(engine, clock)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(purged.insert().values(epoch=clock.now // DAY_US, at_us=clock.now))
    running = indexer(engine, clock)
    running.start()
    try:
        await until(lambda: found(engine, "secret").hits == (), "the text is forgotten")
    finally:
        await asyncio.to_thread(running.stop)


async def test_an_indexer_that_lost_its_turn_adds_nothing_twice(engine: Engine) -> None:
    """Two lead at once, as where a lease ran out in the middle of a batch."""
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        for number in range(5):
            await held(desk, told(f"answer {number}"), user("the question"), run=f"run-{number}")
    one, two = indexer(engine, clock, "one"), indexer(engine, clock, "two")
    for each in (one, two):
        each._lease = Lease(engine, f"search-{id(each)}", "w", clock)  # pyright: ignore[reportPrivateUsage]
    await asyncio.gather(*[asyncio.to_thread(_persist, each) for each in (one, two)])
    assert len(found(engine, "question").hits) == len(found(engine, "answer").hits) == 5
    assert len({hit.row.id for hit in found(engine, "answer").hits}) == 5


def _persist(indexer: Indexer) -> None:
    while True:
        try:
            assert indexer.catch_up(30).records == 0
        except Overtaken:
            continue
        return


async def test_an_index_of_another_store_is_made_anew(engine: Engine) -> None:
    clock = Clock()
    ids = await _conversation(engine, clock)
    if engine.dialect.name == "postgresql":
        return
    with engine.connect() as connection:
        file = index_file(file_of(connection))
    with sqlite3.connect(file) as beside:
        beside.execute("UPDATE about SET store = 'another'")
    beside.close()
    assert found(engine, "refund").hits == ()
    assert found(engine, "refund").behind.records > 0
    index(engine, clock)
    assert {hit.row.call_id for hit in found(engine, "refund").hits} == {ids[0], ids[2]}
