"""Opened runs in the store: opened once, ended once, and how they stand; over SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from budgets import Amount, Hold, Limit, LimitBook, Scope, Settle, Unit, window_named
from llm_proxy.identity.issuing import NewKey, Via
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Evidence, RunOpen
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import keys, records, runs
from llm_proxy.runs import rows
from llm_proxy.runs.changing import NewRun, end_runs, open_run
from llm_proxy.runs.envelope import Envelope, bound_of, read
from llm_proxy.runs.status import RunStatus, standing
from llm_proxy.runs.view import view_of
from llm_proxy.runs.wish import Trigger
from tests.contract.stored import count
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import AGENT, NOW, OWN, faults_of_chain, writing

pytest_plugins = ["tests.postgres"]

HOUR = 3_600_000_000
BOOK = LimitBook([Limit("per-run", Scope(agent="*"), window_named("run"), {Unit.REQUESTS: 5})])
ENVELOPE = Envelope(maximum={Unit.USD: 1_000, Unit.REQUESTS: 3}, tools=("a",))


def _new(run_id: str, parent: RunKey | None = None, token: str = "", **more: Any) -> NewRun:
    key = NewKey(f"lp-{token or run_id}", f"key_{token or run_id}", "bot", run_id, NOW, NOW + HOUR)
    told: dict[str, Any] = {"purpose": "test", "trigger": Trigger(kind="ticket"), "envelope": ENVELOPE} | more
    fixed: dict[str, Any] = {"started_us": NOW, "expires_us": NOW + HOUR, "token": key, "by": "k"}
    return NewRun(AGENT, run_id, parent=parent, **fixed, **told)


def _plain(run_id: str, parent: str = "", agent: str = "bot", parent_agent: str = "") -> Job:
    row = RunOpen(agent, run_id, parent, "crew", "ada", "triage", False, NOW, parent_agent_id=parent_agent)
    return Job(lambda _: Wrote(None, Evidence(runs=(row,))))


def _key(run_id: str) -> RunKey:
    return RunKey("bot", run_id)


async def test_a_run_is_opened_once_and_read_back(engine: Engine) -> None:
    async with writing(engine) as writer:
        assert await writer.submit(open_run(_new("r"))) is True
        assert await writer.submit(open_run(_new("r", token="again"))) is False
    with engine.connect() as connection:
        [run] = rows.chain(connection, _key("r"))
        assert (run.purpose, read(run.envelope), run.expires_us) == ("test", ENVELOPE, NOW + HOUR)
        assert connection.execute(select(keys.c.id)).scalars().all() == ["key_r"]
        kinds = connection.execute(select(records.c.kind).where(OWN).order_by(records.c.seq)).scalars().all()
        assert kinds == ["run.opened", "key.issued"]
        bodies = connection.execute(select(records.c.body)).scalars().all()
        assert not any(b"lp-r" in bytes(body) for body in bodies), "a token stands in the records"
        assert faults_of_chain(connection) == []


def _meeting(job: Job, both: Barrier) -> Job:
    def then(found: Found) -> Wrote:
        with suppress(BrokenBarrierError):  # where the other waits for this one's commit, as on SQLite
            both.wait(0.15)
        return job.then(found)

    return Job(then, ops=job.ops, run=job.run)


@pytest.mark.parametrize("together", [True, False], ids=["one-writer", "two-writers"])
async def test_of_two_that_open_one_run_one_does(engine: Engine, *, together: bool) -> None:
    both = Barrier(2)
    async with writing(engine) as one, writing(engine) as two:
        other = one if together else two
        outcome = await asyncio.gather(
            one.submit(_meeting(open_run(_new("r", token="t1")), both)),
            other.submit(_meeting(open_run(_new("r", token="t2")), both)),
            return_exceptions=True,
        )
    assert outcome.count(True) == 1
    assert all(each is True or each is False or isinstance(each, IntegrityError) for each in outcome)
    with engine.connect() as connection:
        assert count(connection, "state_runs") == count(connection, "state_keys") == 1
        assert count(connection, "records") == 2


@pytest.mark.parametrize("together", [True, False], ids=["one-writer", "two-writers"])
async def test_a_call_that_comes_first_leaves_no_run_without_its_envelope(
    engine: Engine, *, together: bool
) -> None:
    """Whoever wins, a token was given only where the run has the envelope that it was opened with."""
    both = Barrier(2)
    async with writing(engine) as one, writing(engine) as two:
        other = one if together else two
        _, opened = await asyncio.gather(
            one.submit(_meeting(_plain("r"), both)),
            other.submit(_meeting(open_run(_new("r")), both)),
            return_exceptions=True,
        )
    with engine.connect() as connection:
        [run] = rows.chain(connection, _key("r"))
        assert count(connection, "state_keys") == int(opened is True)
        assert (run.envelope != "") is (opened is True)


async def _tree(writer: Any) -> None:
    """root > a > b > c, root > d, and a run that only says it is below root."""
    await writer.submit(open_run(_new("root")))
    for run_id, parent in (("a", "root"), ("b", "a"), ("c", "b"), ("d", "root")):
        await writer.submit(open_run(_new(run_id, _key(parent))))
    await writer.submit(_plain("linked", "root"))
    await writer.submit(_plain("elsewhere", "a", "other", "bot"))


async def test_the_tree_is_read_up_and_down(engine: Engine) -> None:
    async with writing(engine) as writer:
        await _tree(writer)
        with engine.connect() as connection:
            assert [run.run_id for run in rows.chain(connection, _key("c"))] == ["c", "b", "a", "root"]
            assert [run.run_id for run in rows.chain(connection, _key("linked"))] == ["linked"]
            assert rows.chain(connection, _key("nope")) == []
            assert {run.run_id for run in rows.children(connection, _key("root"), 9)} == {"a", "d"}
            found = rows.unended(connection, _key("root"), 99)
            assert {key.run_id for key in found} == {"root", "a", "b", "c", "d", "elsewhere"}
            assert len(rows.unended(connection, _key("root"), 3)) == 3


async def test_a_run_ends_with_those_below_it_and_only_once(engine: Engine) -> None:
    async with writing(engine) as writer:
        await _tree(writer)
        await writer.submit(end_runs(_key("a"), [_key("a")], NOW + 1, why="first", by="k", via=Via.RUNS))
        with engine.connect() as connection:
            unended = rows.unended(connection, _key("root"), 99)
        assert {key.run_id for key in unended} == {"root", "b", "c", "d", "elsewhere"}
        ending = end_runs(_key("root"), [*unended, _key("a")], NOW + 2, why="second", by="o", via=Via.ADMIN)
        await writer.submit(ending)
    with engine.connect() as connection:
        told = {
            row.run_id: (row.ended_us, row.ended_why)
            for row in connection.execute(select(runs.c.run_id, runs.c.ended_us, runs.c.ended_why))
        }
        assert told["a"] == (NOW + 1, "first")
        assert told["root"] == (NOW + 2, "second")
        assert told["c"] == told["elsewhere"] == (NOW + 2, "second (with run root)")
        assert told["linked"] == (None, "")
        assert rows.unended(connection, _key("root"), 99) == []


async def test_a_chain_without_an_end_binds_nobody_unseen(engine: Engine) -> None:
    async with writing(engine) as writer:
        await writer.submit(_plain("x", "y", parent_agent="bot"))
        await writer.submit(_plain("y", "x", parent_agent="bot"))
        for depth in range(40):
            await writer.submit(_plain(f"d{depth + 1}", f"d{depth}", parent_agent="bot"))
    with engine.connect() as connection:
        for run_id in ("x", "d40"):
            with pytest.raises(LookupError, match="have no end"):
                rows.chain(connection, _key(run_id))
        assert len(rows.chain(connection, _key("d32"))) == 33


async def test_open_runs_are_counted_up_to_a_most(engine: Engine) -> None:
    async with writing(engine) as writer:
        await _tree(writer)
        await writer.submit(end_runs(_key("d"), [_key("d")], NOW + 1, why="w", by="k", via=Via.RUNS))
    with engine.connect() as connection:
        assert rows.count_open(connection, "bot", NOW + 5, 99) == 4
        assert rows.count_open(connection, "bot", NOW + 5, 2) == 2
        assert rows.count_open(connection, "bot", NOW + HOUR, 99) == 0
        assert rows.count_open(connection, "other", NOW + 5, 99) == 0


async def test_how_a_run_stands(engine: Engine) -> None:
    async with writing(engine) as writer:
        await _tree(writer)
        bounds = [bound_of("bot", run_id, ENVELOPE) for run_id in ("a", "root")]
        held = tuple([bound for bound in bounds if bound is not None])
        amount = Amount(micro_usd=300, requests=1)
        for n in range(3):
            await writer.submit(
                Job(lambda _: Wrote(None), ops=(Hold(f"h{n}", held, amount, amount, NOW + HOUR),))
            )
        settled = tuple(Settle(f"h{n}", Amount(micro_usd=150, requests=1)) for n in range(2))
        await writer.submit(Job(lambda _: Wrote(None), ops=settled))
        with engine.connect() as connection:
            open_ = standing(connection, BOOK, _key("b"), NOW + 9)
            assert open_ is not None
            assert (open_.status, open_.why) == (RunStatus.OPEN, "")
            assert open_.left == {"usd": 0.0004, "requests": 0}
            assert open_.envelope == {"usd": 0.001, "requests": 3, "expires_s": 3_600, "tools": ["a"]}
            root = [use for use in open_.uses if use.limit == "envelope:root"]
            assert [(use.unit, use.used, use.held, use.left, use.run_id) for use in root] == [
                ("usd", 0.0003, 0.0003, 0.0004, "root"),
                ("requests", 2, 1, 0, "root"),
            ]
            assert [use.run_id for use in open_.uses if use.limit == "per-run"] == ["b", "a", "root"]
        await writer.submit(Job(lambda _: Wrote(None), ops=(Settle("h2", Amount(requests=1)),)))
        with engine.connect() as connection:
            spent = standing(connection, BOOK, _key("b"), NOW + 9)
            assert spent is not None
            assert spent.status is RunStatus.EXHAUSTED
            assert spent.why == "all 3 requests of the envelope of run 'a' are used up"
            late = standing(connection, BOOK, _key("b"), NOW + HOUR)
            assert late is not None
            assert late.status is RunStatus.EXPIRED
            assert late.why == "expired at 2027-01-15T09:00:00Z"
        await writer.submit(end_runs(_key("root"), [_key("root")], NOW + 1, why="w", by="k", via=Via.RUNS))
        with engine.connect() as connection:
            ended = view_of(connection, BOOK, _key("d"), NOW + HOUR)
            assert ended is not None
            assert (ended.status, ended.why) == (RunStatus.EXPIRED, "expired at 2027-01-15T09:00:00Z")
            early = view_of(connection, BOOK, _key("root"), NOW + 9)
            assert early is not None
            assert (early.status, early.why, early.calls.total) == (RunStatus.ENDED, "w", 0)
            assert {(child.run_id, child.status) for child in early.children} == {
                ("a", RunStatus.OPEN),
                ("d", RunStatus.OPEN),
            }
            assert view_of(connection, BOOK, _key("nope"), NOW) is None
            plain = view_of(connection, BOOK, _key("linked"), NOW)
            assert plain is not None
            assert (plain.status, plain.envelope, plain.parent) == (RunStatus.OPEN, None, None)
            assert plain.left == {"requests": 5}
