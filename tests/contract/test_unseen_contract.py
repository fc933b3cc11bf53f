"""What a run keeps, on SQLite and PostgreSQL: replies that it never saw, values that it takes over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, update

from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.classified import load_classified
from llm_proxy.records.evidence import Evidence, RunOpen
from llm_proxy.records.inherited import NONE, Inherited, Sources, begun_with, from_above, from_both
from llm_proxy.records.policy_rows import ClassifiedRow, UnseenRow
from llm_proxy.records.runstate import Mark, RunKey, load_runs
from llm_proxy.records.tables import runs
from llm_proxy.records.unseen import MOST, load_unseen, room_for, with_room
from llm_proxy.records.writer import Writer
from tests.stores import NOW, store, writing

pytest_plugins = ["tests.postgres"]
RUN = RunKey("bot", "r")


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('unseen')}/store.db"
    else:
        url = request.getfixturevalue("postgres_url")
    with store(url) as opened:
        yield opened


async def keep(writer: Writer, n: int, body: bytes = b"{}") -> None:
    row = UnseenRow("bot", "r", f"{n:064}", body, NOW + n)

    def then(found: Found) -> Wrote:
        return Wrote(None, with_room(Evidence(unseen=(row,)), found.seen))

    await writer.submit(Job(then, look=room_for(row)))


@pytest.mark.asyncio
async def test_a_run_keeps_so_many_replies_and_the_first_of_a_key(engine: Engine) -> None:
    async with writing(engine) as writer:
        for n in range(MOST + 5):
            await keep(writer, n)
        await keep(writer, 3, b"later")
    wanted = frozenset([f"{n:064}" for n in range(MOST + 5)])
    with engine.connect() as connection:
        found = load_unseen(connection, RUN, wanted)
        assert sorted(found) == sorted(wanted)[:MOST]
        assert set(found.values()) == {b"{}"}
        assert load_unseen(connection, RUN, frozenset()) == {}
        assert load_unseen(connection, RunKey("bot", "other"), wanted) == {}
    assert room_for(None) is None


def opened(run: str) -> RunOpen:
    return RunOpen("bot", run, "", "", "", "", inferred=False, started_us=NOW)


@pytest.mark.asyncio
async def test_a_run_takes_over_labels_and_values(engine: Engine) -> None:
    value = ClassifiedRow("bot", "r", b"t" * 16, 2, 1, 5, "pay")
    async with writing(engine) as writer:
        await writer.submit(Job(lambda _: Wrote(None, Evidence(runs=(opened("r"),), classified=(value,)))))
        with engine.begin() as connection:
            marked = update(runs).where(runs.c.run_id == "r")
            connection.execute(marked.values(marks=int(Mark.CLASSIFIED), sensitivity=3, untrusted=True))

        def then(found: Found) -> Wrote:
            return Wrote(found.seen, begun_with(Evidence(runs=(opened("below"),)), found.seen))

        above = await writer.submit(Job(then, look=from_above(RUN)))
        both = await writer.submit(Job(lambda found: Wrote(found.seen), look=from_both(None, RUN)))
    assert above == Inherited(3, untrusted=True, classified=(value,))
    assert both == Sources(NONE, above)
    assert from_above(None) is from_both(None, None) is None
    below = RunKey("bot", "below")
    with engine.connect() as connection:
        state = load_runs(connection, {below})[below]
        assert load_classified(connection, below) == [value._replace(run_id="below")]
    assert (state.sensitivity, state.untrusted, state.marks) == (3, True, Mark.CLASSIFIED)
