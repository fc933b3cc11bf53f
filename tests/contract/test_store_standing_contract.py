"""Keys and standing in the store, on SQLite and PostgreSQL: what changes, in which order, who hears of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event, func, insert, select

from llm_proxy.archive.listings import KeyView, count_keys, find_key, list_keys
from llm_proxy.identity import freezing, issuing
from llm_proxy.identity.freezing import AgentEvent
from llm_proxy.identity.issuing import KeyEvent, NewKey, Via
from llm_proxy.identity.keyring import hash_key
from llm_proxy.records.standing import (
    Frozen,
    KeyChange,
    Standing,
    StandingReader,
    frozen_agent,
    issued_keys,
)
from llm_proxy.records.tables import keys, records, runs
from llm_proxy.records.writer import Writer
from tests.stores import NOW, OWN, faults_of_chain, store, writing

pytest_plugins = ["tests.postgres"]

HOUR = 3_600_000_000
DAY = 24 * HOUR


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('standing')}/store.db"
    else:
        url = request.getfixturevalue("postgres_url")
    with store(url) as opened:
        yield opened


def new(name: str, agent: str = "bot", expires_us: int | None = None, at_us: int = NOW) -> NewKey:
    return NewKey(f"lp-{name}", f"key_{name}", agent, "", at_us, expires_us)


async def issue(writer: Writer, name: str, agent: str = "bot", expires_us: int | None = None) -> None:
    await writer.submit(issuing.issue(new(name, agent, expires_us), by="dana", via=Via.ADMIN))


async def rotate(writer: Writer, name: str, until_us: int, agent: str = "bot") -> None:
    await writer.submit(issuing.rotate(new(name, agent), until_us, by="dana", via=Via.ADMIN))


async def revoke(writer: Writer, name: str, at_us: int, agent: str = "bot") -> None:
    event = KeyEvent(
        key_id=f"key_{name}", agent_id=agent, run_id="", expires_us=None, by="dana", via=Via.ADMIN
    )
    await writer.submit(issuing.revoke(event, at_us))


def ends(engine: Engine, agent: str = "bot") -> dict[str, tuple[int | None, int | None]]:
    """When each key of the agent expires, and was revoked."""
    with engine.connect() as connection:
        found = list_keys(connection, limit=1_000, agent=agent)
    return {key.id.removeprefix("key_"): (key.expires_us, key.revoked_us) for key in found}


def kinds(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        assert faults_of_chain(connection) == []
        kinds = select(records.c.kind).where(OWN).order_by(records.c.writer, records.c.seq)
        return list(connection.execute(kinds).scalars())


async def test_rotation_ends_every_other_active_key_of_the_agent_and_nothing_else(engine: Engine) -> None:
    async with writing(engine) as writer:
        await issue(writer, "endless")
        await issue(writer, "soon", expires_us=NOW + 1)
        await issue(writer, "late", expires_us=NOW + DAY)
        await issue(writer, "gone")
        await revoke(writer, "gone", NOW + 5)
        await issue(writer, "others", agent="other")
        await rotate(writer, "new", NOW + HOUR)
    assert ends(engine) == {
        "endless": (NOW + HOUR, None),
        "soon": (NOW + 1, None),
        "late": (NOW + HOUR, None),
        "gone": (None, NOW + 5),
        "new": (None, None),
    }
    assert ends(engine, "other") == {"others": (None, None)}
    assert kinds(engine)[-2:] == ["key.issued", "key.changed"]
    with engine.connect() as connection:
        assert count_keys(connection, NOW) == {"bot": 4, "other": 1}
        assert count_keys(connection, NOW + HOUR) == {"bot": 1, "other": 1}


async def test_a_later_rotation_never_prolongs(engine: Engine) -> None:
    async with writing(engine) as writer:
        await issue(writer, "a")
        await rotate(writer, "b", NOW + HOUR)
        await rotate(writer, "c", NOW + DAY)
        await rotate(writer, "d", NOW + 60)
    assert ends(engine) == {
        "a": (NOW + 60, None),
        "b": (NOW + 60, None),
        "c": (NOW + 60, None),
        "d": (None, None),
    }


async def test_the_first_revocation_stands(engine: Engine) -> None:
    async with writing(engine) as writer:
        await issue(writer, "a")
        await asyncio.gather(*(revoke(writer, "a", NOW + n) for n in range(1, 6)))
    assert ends(engine) == {"a": (None, NOW + 1)}


async def test_keys_issued_revoked_and_rotated_at_once_by_two_writers(engine: Engine) -> None:
    async with writing(engine) as one, writing(engine) as two:
        names = [f"{n}" for n in range(20)]
        await asyncio.gather(*(issue(one, name) for name in names))
        both = (one, two)
        await asyncio.gather(
            *(revoke(both[n % 2], name, NOW + 7) for n, name in enumerate(names[:10])),
            *(rotate(both[n % 2], f"r{n}", NOW + HOUR) for n in range(10)),
            *(issue(both[n % 2], f"i{n}") for n in range(10)),
        )
        # What was issued before a rotation ends with it; it's the store that decides which these are.
        await rotate(one, "last", NOW + HOUR)
    found = ends(engine)
    assert [found[name][1] for name in names[:10]] == [NOW + 7] * 10
    assert {found[name] for name in names[10:]} == {(NOW + HOUR, None)}
    assert {found[name][0] for name in found if name[0] in "ri"} == {NOW + HOUR}
    assert found["last"] == (None, None)
    assert kinds(engine).count("key.issued") == 41


def agent_event(by: str, reason: str = "why") -> AgentEvent:
    return AgentEvent(agent_id="bot", reason=reason, by=by, via=Via.ADMIN)


async def test_of_two_freezes_the_first_stands_until_a_thaw(engine: Engine) -> None:
    async with writing(engine) as one, writing(engine) as two:
        await one.submit(freezing.freeze(agent_event("dana", "first"), NOW))
        await asyncio.gather(
            *(
                w.submit(freezing.freeze(agent_event(f"eve{n}"), NOW + n))
                for n in range(5)
                for w in (one, two)
            )
        )
        with engine.connect() as connection:
            assert frozen_agent(connection, "bot") == Frozen("bot", NOW, "dana", "first")
        await two.submit(freezing.thaw(agent_event("eve"), NOW + 9))
        with engine.connect() as connection:
            assert frozen_agent(connection, "bot") is None
        await one.submit(freezing.freeze(agent_event("eve", "again"), NOW + 10))
    with engine.connect() as connection:
        assert frozen_agent(connection, "bot") == Frozen("bot", NOW + 10, "eve", "again")
        assert frozen_agent(connection, "other") is None


async def test_the_reader_tells_what_changed_since_and_only_that(engine: Engine) -> None:
    reader = StandingReader(engine)
    try:
        assert reader(0) == Standing()
        async with writing(engine) as writer:
            await issue(writer, "a")
            await issue(writer, "b")
            await issue(writer, "c")
            assert reader(0) == Standing()
            await revoke(writer, "a", NOW + 5)
            await rotate(writer, "d", NOW + HOUR)
            await writer.submit(freezing.freeze(agent_event("dana"), NOW + 6))
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            connection.execute(insert(runs).values(_run("over", NOW + 8)))
            connection.execute(insert(runs).values(_run("on", None)))
        found = reader(NOW + 1)
        assert found.keys == (KeyChange("key_a", None, NOW + 5),)
        assert [(run.agent_id, run.run_id, run.ended_us) for run in found.ended] == [("bot", "over", NOW + 8)]
        assert found.frozen == (Frozen("bot", NOW + 6, "dana", "why"),)
        assert {key.id for key in reader(NOW).keys} == {"key_a", "key_b", "key_c"}
        later = reader(NOW + 100)
        assert (later.keys, later.ended) == ((), ())
        assert later.frozen == found.frozen
    finally:
        reader.close()


def _run(id_: str, ended_us: int | None) -> dict[str, object]:
    return {
        "agent_id": "bot",
        "run_id": id_,
        "parent_run_id": "",
        "team": "",
        "user_id": "",
        "role_at_start": "",
        "inferred": False,
        "started_us": NOW,
        "revision": 0,
        "sensitivity": 0,
        "untrusted": False,
        "labels": "[]",
        "denials": 0,
        "ended_us": ended_us,
    }


async def test_a_hundred_thousand_keys_are_not_read_to_find_a_few(engine: Engine) -> None:
    """Every look goes by an index: over the keys that changed lately, or over the hashes that were shown."""
    rows = [
        (f"key_{n}", f"agent-{n % 100}", hash_key(f"lp-{n}"), "", NOW + n, None, None, None)
        for n in range(100_000)
    ]
    names = [column.name for column in keys.columns]
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        for start in range(0, len(rows), 10_000):
            some = [dict(zip(names, row, strict=True)) for row in rows[start : start + 10_000]]
            connection.execute(insert(keys), some)
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("ANALYZE state_keys")
    plans = _plans(engine)
    assert "SCAN state_keys" not in plans
    assert "Seq Scan on state_keys" not in plans
    reader = StandingReader(engine)
    try:
        reader(NOW)
        began = asyncio.get_running_loop().time()
        for _ in range(50):
            assert reader(NOW - HOUR).keys == ()
        each = (asyncio.get_running_loop().time() - began) / 50
    finally:
        reader.close()
    assert each < 0.05, f"one look took {each * 1000:.1f} ms"
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(keys)).scalar_one() == 100_000
        found = issued_keys(connection, [hash_key(f"lp-{n}") for n in (5, 99_999, -1)])
        assert {key.id for key in found} == {"key_5", "key_99999"}
        assert isinstance(find_key(connection, "key_7"), KeyView)


def _plans(engine: Engine) -> str:
    """How the database goes about what the reader and the look-up ask."""
    explain = "EXPLAIN " if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
    asked: list[tuple[str, object]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith("SELECT") and threading.current_thread() is threading.main_thread():
            asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    reader = StandingReader(engine)
    try:
        reader(NOW + DAY)
        with engine.connect() as connection:
            issued_keys(connection, [hash_key("lp-1")])
    finally:
        reader.close()
        event.remove(engine, "before_cursor_execute", note)
    assert len(asked) == 4
    told = ""
    with engine.connect() as connection:
        for statement, parameters in asked:
            rows = connection.exec_driver_sql(explain + statement, parameters).fetchall()  # type: ignore[arg-type]
            told += "\n".join(str(row[-1]) for row in rows) + "\n"
    return told
