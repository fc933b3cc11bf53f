"""What is spent, asked in every way, over a SQLite file and a real PostgreSQL: the sums are the ledger's."""

from __future__ import annotations

import itertools
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Select, func, select

from budgets.sql_tables import TABLES
from llm_proxy.archive.run_filter import RunFilter, conditions
from llm_proxy.records.tables import runs
from llm_proxy.records.view import CostLabel, Status
from llm_proxy.spend.question import BadQuestion, Filters, Question, asked
from llm_proxy.spend.sources import ranked_runs
from llm_proxy.spend.sums import Answer, answer
from tests.booked import DAY_US, Books, Called
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, store, writing

pytest_plugins = ["tests.postgres"]

PLAIN = (
    "agent",
    "team",
    "user",
    "run",
    "model",
    "target",
    "provider",
    "tag",
    "tag:env",
    "day",
    "week",
    "month",
)
FAILED = (Status.FAILED, Status.CUT, Status.INTERRUPTED)


async def _books(engine: Engine, seed: int, calls: int = 80) -> list[Called]:
    async with writing(engine) as writer:
        books = Books(engine, writer, seed)
        await books.write(calls)
    return books.called


def _group(call: Called, group: str) -> str:
    day = datetime.fromtimestamp(call.started_us / 1e6, UTC).date()
    match group:
        case "tag":
            return ",".join(call.tags)
        case "tag:env":
            return ",".join(tag[4:] for tag in call.tags if tag.startswith(("env=", "env:")))
        case "day":
            return day.isoformat()
        case "week":
            return day.strftime("%G-W%V")
        case "month":
            return day.strftime("%Y-%m")
        case _:
            return getattr(call, group)


def _expected(calls: list[Called], by: tuple[str, ...]) -> dict[tuple[str, ...], dict[str, int]]:
    found: dict[tuple[str, ...], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for call in calls:
        sums = found[tuple(_group(call, group) for group in by)]
        sums["requests"] += 1
        sums["refused"] += call.status is Status.REFUSED
        sums["failed"] += call.status in FAILED
        sums["retried"] += call.attempts > 1
        sums["unpriced"] += call.label is CostLabel.UNPRICED
        sums["input_tokens"] += call.input
        sums["output_tokens"] += call.output
        sums["micro_usd"] += call.micro_usd
        sums["lost_micro_usd"] += call.lost
        sums["guessed_micro_usd"] += (
            call.micro_usd if call.label in (CostLabel.ESTIMATED, CostLabel.PARTIAL) else 0
        )
    return found


def _read(engine: Engine, **question: Any) -> Answer:
    with engine.connect() as connection:
        return answer(connection, Question(**question))


def _same(told: Answer, expected: dict[tuple[str, ...], dict[str, int]]) -> None:
    assert {row.key for row in told.rows} == set(expected)
    for row in told.rows:
        for name, figure in expected[row.key].items():
            assert row.sums[name] == figure, (row.key, name)


def _ledger(engine: Engine, column: str) -> int:
    counters = TABLES.counters.c
    with engine.connect() as connection:
        query = select(func.sum(counters[f"used_{column}"])).where(counters.key == "all|lifetime")
        return int(connection.execute(query).scalar_one())


@pytest.mark.parametrize("seed", range(3))
async def test_every_grouping_adds_up_to_the_ledger(engine: Engine, seed: int) -> None:
    calls = await _books(engine, seed)
    money, tokens = _ledger(engine, "micro_usd"), _ledger(engine, "tokens")
    assert money == sum(call.micro_usd for call in calls) > 0
    pairs = [*((group,) for group in PLAIN), *itertools.combinations(PLAIN, 2), PLAIN[:4] + PLAIN[7:10]]
    for by in pairs:
        told = _read(engine, by=by)
        _same(told, _expected(calls, by))
        assert (told.total["micro_usd"], told.total.tokens) == (money, tokens), by
        assert told.total["requests"] == len(calls)


@pytest.mark.parametrize("seed", range(3))
async def test_tools_share_their_calls_and_the_rest_has_none(engine: Engine, seed: int) -> None:
    calls = await _books(engine, seed, 60)
    for by in (("tool",), ("agent", "tool"), ("tool", "day", "tag:env")):
        told = _read(engine, by=by)
        at = by.index("tool")
        for name, sums in _expected(calls, tuple(g for g in by if g != "tool")).items():
            rows = [row for row in told.rows if (*row.key[:at], *row.key[at + 1 :]) == name]
            for figure in ("requests", "input_tokens", "output_tokens", "micro_usd", "refused", "unpriced"):
                assert sum(row.sums[figure] for row in rows) == sums[figure], (name, figure)
        assert told.total["micro_usd"] == _ledger(engine, "micro_usd")
        for tool in ("search", "pay", "=cmd()", "read"):
            proposed = sum(call.tools.count(tool) for call in calls)
            assert sum(row.sums["tool_calls"] for row in told.rows if row.key[at] == tool) == proposed
        assert told.total["denied"] == sum(call.denied for call in calls) > 0
        untooled = [call.micro_usd for call in calls if not call.tools]
        assert sum(row.sums["micro_usd"] for row in told.rows if not row.key[at]) == sum(untooled)


async def test_times_cut_days_at_the_microsecond(engine: Engine) -> None:
    calls = await _books(engine, 5)
    starts = sorted(call.started_us for call in calls)
    noon = NOW - NOW % DAY_US - DAY_US // 2
    ends: list[int | None] = [
        None,
        *starts[::17],
        starts[3] + 1,
        noon,
        noon - 3_600_000_000,
        noon - 2 * DAY_US,
    ]
    for since, until in itertools.product(ends, ends):
        if since is not None and until is not None and since >= until:
            continue
        within = [
            call
            for call in calls
            if (since is None or call.started_us >= since) and (until is None or call.started_us < until)
        ]
        for by in (("agent", "day"), ("run",), ("tag:env",)):
            told = _read(engine, by=by, since_us=since, until_us=until)
            _same(told, _expected(within, by))


async def test_filters_leave_out_all_others(engine: Engine) -> None:
    calls = await _books(engine, 6)
    wanted = [
        ("agent", "bot-1"),
        ("team", "crew"),
        ("team", ""),
        ("user", "bob"),
        ("run", "run-2"),
        ("model", "m"),
        ("target", "a"),
        ("provider", "anthropic"),
    ]
    for name, value in wanted:
        within = [call for call in calls if getattr(call, name) == value]
        assert within
        _same(_read(engine, where=Filters(**{name: value})), _expected(within, ("agent",)))
    for tag in ("env=prod", "nightly", "=evil"):
        within = [call for call in calls if tag in call.tags]
        _same(_read(engine, where=Filters(tag=tag)), _expected(within, ("agent",)))
    assert _read(engine, where=Filters(tag="env=pro")).rows == ()
    assert _read(engine, where=Filters(tag="env=prod,nightly")).rows == ()
    by_tool = _read(engine, by=("tool",), where=Filters(agent="bot-1"))
    assert by_tool.total["micro_usd"] == sum(call.micro_usd for call in calls if call.agent == "bot-1")


async def test_rows_come_by_time_then_the_dearest_first(engine: Engine) -> None:
    await _books(engine, 7)
    told = _read(engine, by=("agent", "day"))
    order = [(row.key[1], row.sums["micro_usd"]) for row in told.rows]
    assert order == sorted(order, reverse=True)
    by_agent = [row.sums["micro_usd"] for row in _read(engine).rows]
    assert by_agent == sorted(by_agent, reverse=True)


@pytest.mark.parametrize("by", [("run",), ("run", "agent"), ("agent", "run", "model"), ("agent",)])
async def test_the_dearest_are_told_alone(engine: Engine, by: tuple[str, ...]) -> None:
    await _books(engine, 7)
    whole = _read(engine, by=by)
    with engine.connect() as connection:
        few = answer(connection, Question(by=by), most=2)
        none = answer(connection, Question(by=by, where=Filters(agent="nobody")), most=2)
    assert few.rows[:2] == whole.rows[:2]
    assert few.total == whole.total
    assert len(few.rows) + few.left_out == len(whole.rows) > 2
    assert (none.rows, none.left_out, none.total) == ((), 0, whole.total.__class__())


@pytest.mark.parametrize(
    "query",
    [
        ranked_runs(Question(by=("run", "agent"), since_us=1), 9, postgresql=False),
        select(runs.c.run_id).where(*conditions(RunFilter(model="m"))),
        select(runs.c.run_id).where(*conditions(RunFilter(error="timeout"))),
        select(runs.c.run_id).where(*conditions(RunFilter(min_micro_usd=1))),
    ],
    ids=["spend by run", "model", "error", "cost"],
)
def test_runs_are_chosen_without_reading_their_calls(query: Select[Any], tmp_path: Path) -> None:
    """Of a million calls that would take a second, on SQLite, which says what it would do."""
    with store(f"sqlite:///{tmp_path}/store.db") as engine, engine.connect() as connection:
        written = str(query.compile(engine, compile_kwargs={"literal_binds": True}))
        plan = [str(step[3]) for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {written}")]
    assert [step.partition(" INDEX ")[2].split()[0] for step in plan if "state_calls" in step] == [
        "state_calls_by_run"
    ]
    assert not [step for step in plan if "state_calls" in step and "COVERING" not in step]


@pytest.mark.parametrize("by", [("agent", "day"), ("day", "tool")])
async def test_few_measures_are_counted_alone(engine: Engine, by: tuple[str, ...]) -> None:
    await _books(engine, 7)
    with engine.connect() as connection:
        money = answer(connection, Question(by=by), ("requests", "micro_usd"))
    whole = [row for row in _read(engine, by=by).rows if row.sums["requests"] or row.sums["micro_usd"]]
    assert [row.key for row in money.rows] == [row.key for row in whole]
    for few, row in zip(money.rows, whole, strict=True):
        assert (few.sums["micro_usd"], few.sums["requests"]) == (row.sums["micro_usd"], row.sums["requests"])
        assert few.sums["input_tokens"] == 0


async def test_too_many_groups_are_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await _books(engine, 8, 10)
    monkeypatch.setattr("llm_proxy.spend.sums.MOST_ROWS", 2)
    with pytest.raises(BadQuestion, match="over 2 groups"):
        _read(engine, by=("run", "agent"))


def test_an_empty_store_has_no_rows(engine: Engine) -> None:
    told = _read(engine, by=("agent", "tool"))
    assert told.rows == ()
    assert not any(told.total.figures)
    assert _read(engine, by=("run",)).rows == ()
    assert asked("tool", "36h", None, Filters(), NOW).since_us == NOW - NOW % DAY_US - 2 * DAY_US
