"""What calls that run at once make of one run, over a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import pytest
from sqlalchemy import Engine, select

from budgets import Amount, Take, Taken
from llm_proxy.judge import Judge
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Evidence, RunOpen, RunUpdate, ToolCallRow
from llm_proxy.records.runstate import RunKey, RunState
from llm_proxy.records.tables import runs
from llm_proxy.turns import Turns
from tests.contract.stored import REPLY, RUN, count, view
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, Clock, Desk, body_of, writing

pytest_plugins = ["tests.postgres"]


def _tool_call(call: str, tool: str) -> ToolCallRow:
    return ToolCallRow("bot", "run-1", call, 0, 0, f"id-{tool}", tool, "allow", "write", "", NOW)


def _verdict(tool: str, expect: int, seen: list[RunState]) -> Job:
    def then(found: Found) -> Wrote:
        seen.append(found.run)
        if found.run.revision != expect:
            assert found.results == ()
            return Wrote("stale")
        assert [type(result) for result in found.results] == [Taken]
        advanced = RunUpdate(expect + 1, 0, False, "[]", found.run.denials, 0, "bot", "run-1")
        return Wrote("judged", Evidence(tool_calls=(_tool_call(tool, tool),), run_updates=(advanced,)))

    return Job(then, ops=(Take(tool, (), Amount(tool_calls=1)),), run=RUN, expect=expect)


BEGUN = Evidence(runs=(RunOpen("bot", "run-1", "", "", "", "triage", False, NOW),))


@pytest.mark.parametrize("together", [True, False], ids=["one-writer", "two-writers"])
async def test_of_two_verdicts_on_one_run_the_second_sees_the_first(
    engine: Engine, *, together: bool
) -> None:
    async with writing(engine) as one, writing(engine) as two:
        await one.submit(Job(lambda _: Wrote(None, BEGUN)))
        seen: list[RunState] = []
        other = one if together else two
        outcome = await asyncio.gather(
            one.submit(_verdict("a", 0, seen)), other.submit(_verdict("b", 0, seen))
        )
        assert sorted(outcome) == ["judged", "stale"]
        late = max(seen, key=lambda state: state.revision)
        assert late.revision == 1
        assert [call.tool for call in late.history] == ["ab"[outcome.index("judged")]]
        assert await other.submit(_verdict("c", 1, seen)) == "judged"
    with engine.connect() as connection:
        assert count(connection, "state_tool_calls") == 2


async def test_runs_of_one_id_belong_to_their_agents(engine: Engine) -> None:
    async with writing(engine) as writer:
        await writer.submit(Job(lambda _: Wrote(None, BEGUN)))
        seen: list[RunState] = []
        await writer.submit(_verdict("a", 0, seen))

        def then(found: Found) -> Wrote:
            return Wrote(found.run)

        assert await writer.submit(Job(then, run=RunKey("other", "run-1"))) == RunState()


async def test_two_writers_that_begin_one_run_lose_no_label(engine: Engine) -> None:
    """Neither can lock the run, which isn't there yet: the later one is run again on what the first wrote."""
    both = Barrier(2)

    def begin(sensitivity: int, *, untrusted: bool) -> Job:
        def then(found: Found) -> Wrote:
            with suppress(BrokenBarrierError):  # where the other waits for this one's commit, as on SQLite
                both.wait(0.15)
            run = found.run
            advanced = RunUpdate(
                run.revision + 1,
                max(run.sensitivity, sensitivity),
                run.untrusted or untrusted,
                "[]",
                0,
                0,
                "bot",
                "run-1",
            )
            return Wrote(None, Evidence(runs=BEGUN.runs, run_updates=(advanced,)))

        return Job(then, run=RUN)

    async with writing(engine) as one, writing(engine) as two:
        await asyncio.gather(one.submit(begin(3, untrusted=False)), two.submit(begin(1, untrusted=True)))
    with engine.connect() as connection:
        row = connection.execute(select(runs.c.revision, runs.c.sensitivity, runs.c.untrusted)).one()
    assert tuple(row) == (2, 3, True)


async def test_verdicts_are_recorded_before_they_are_answered(engine: Engine) -> None:
    clock = Clock()
    long_id, wide = "call__thought__" + "x" * 4000, 1 << 33
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        exchange = await desk.open(body_of())
        judge = Judge(exchange, None, None, writer, clock, "test", Turns())
        body = REPLY.replace(
            b'"content":"Hello"',
            b'"tool_calls":[{"id":"ID","function":{"name":"f\\u0000","arguments":"{}"}}]',
        )
        for item in exchange.dialect.read_body(body.replace(b"ID", long_id.encode())).events:
            exchange.assembly.add(item)
        [call] = exchange.assembly.calls()
        assert (
            await judge((type(call)(choice=0, index=wide, id=call.id, name=call.name, arguments="{}"),)) == {}
        )
        found = view(engine, exchange.id)
        assert [(d.tool, d.tool_call_id, d.decision) for d in found.decisions] == [("f\0", long_id, "allow")]
        state = await writer.submit(Job(lambda found: Wrote(found.run), run=RUN))
    assert state.revision == 1
    assert [(c.tool, len(c.tool_call_id)) for c in state.history] == [("f\ufffd", 71)]
