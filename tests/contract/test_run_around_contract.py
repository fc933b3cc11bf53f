"""The runs below a run: the nearest first, so many and no more, in a few questions; SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from llm_proxy.admin.run_around import DEEPEST, MOST_RUNS, runs_below
from llm_proxy.admin.run_told import children_of
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import runs
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url

pytest_plugins = ["tests.postgres"]

ROOT = RunKey("bot", "root")
Told = list[tuple[int, str, str]]


@contextmanager
def statements(engine: Engine) -> Generator[list[str]]:
    found: list[str] = []

    def seen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    event.listen(engine, "before_cursor_execute", seen)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", seen)


def begun(run: str, at_us: int, parent: str = "", of: str = "bot", agent: str = "bot") -> dict[str, Any]:
    """`of` is whose run the parent is; empty for a trace link."""
    return dict.fromkeys(("team", "user_id", "role_at_start", "labels"), "") | {
        "agent_id": agent,
        "run_id": run,
        "parent_run_id": parent,
        "parent_agent_id": of if parent else "",
        "inferred": False,
        "started_us": at_us,
        "revision": 1,
        "sensitivity": 0,
        "untrusted": False,
        "denials": 0,
    }


def below(engine: Engine, rows: Sequence[dict[str, Any]], most: int = MOST_RUNS) -> tuple[Told, bool]:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(runs.insert(), [begun("root", 0), *rows])
    with engine.connect() as connection:
        first = [child for _, child in children_of(connection, [ROOT], most)]
        found, more = runs_below(connection, ROOT, first, more=False)
    return [(one.depth, one.run.agent_id, one.run.run_id) for one in found], more


def test_each_stands_below_the_one_that_began_it_once(engine: Engine) -> None:
    rows = [
        begun("b", 30, "root"),
        begun("a", 10, "root", agent="other"),
        begun("a-1", 20, "a", of="other"),
        begun("a-2", 5, "a", of="bot"),
        begun("linked", 40, "a", of=""),
        begun("b-1", 50, "b"),
        begun("b-1-1", 60, "b-1"),
        begun("elsewhere", 1, "root", of="other"),
    ]
    assert below(engine, rows) == (
        [
            *((1, "other", "a"), (2, "bot", "a-1"), (2, "bot", "linked")),
            *((1, "bot", "b"), (2, "bot", "b-1"), (3, "bot", "b-1-1")),
        ],
        False,
    )


def test_of_too_many_the_nearest_are_told_in_a_few_questions(engine: Engine) -> None:
    some = MOST_RUNS // 2
    rows = [begun(f"c{n}", n, "root") for n in range(some)]
    rows += [begun(f"c{n}-{m}", 1_000 + n, f"c{n}") for n in range(some) for m in range(2)]
    with statements(engine) as sent:
        found, more = below(engine, rows)
    assert (len(found), more) == (MOST_RUNS, True)
    assert [depth for depth, _, _ in found].count(1) == some
    assert len([one for one in sent if "FROM state_" in one]) < 10


def test_what_is_too_far_below_is_not_told(engine: Engine) -> None:
    rows = [begun("1", 1, "root"), *(begun(str(n), n, str(n - 1)) for n in range(2, DEEPEST + 1))]
    found, more = below(engine, rows)
    assert ([depth for depth, _, _ in found], more) == (list(range(1, DEEPEST + 1)), False)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(runs.delete())
    found, more = below(engine, [*rows, begun("deeper", 99, str(DEEPEST))])
    assert (len(found), more) == (DEEPEST, True)
