"""Reported side effects in the store: tied to released calls, bounded per run; over SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from sqlalchemy import Engine, select

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.evidence import Evidence, RunOpen, ToolCallRow, tool_call_key
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.tables import records
from llm_proxy.runs import effects
from llm_proxy.runs.effects import Effect, EffectWish, effects_of, report
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, faults_of_chain, writing

pytest_plugins = ["tests.postgres"]

RUN = RunKey("bot", "r")
LONG = "call_" + "x" * 400


def _judged(position: int, id_: str, decision: str, tool: str, at_us: int = NOW) -> ToolCallRow:
    return ToolCallRow("bot", "r", "c", 0, position, tool_call_key(id_), tool, decision, "write", "d", at_us)


def _run() -> Job:
    run = RunOpen("bot", "r", "", "crew", "ada", "triage", False, NOW)
    calls = (
        _judged(0, "call_0", "allow", "first"),
        _judged(1, "call_0", "allow", "second", NOW + 1),
        _judged(2, "no", "deny", "third"),
        _judged(3, LONG, "allow", "long"),
    )
    return Job(lambda _: Wrote(None, Evidence(runs=(run,), tool_calls=calls)))


def _report(n: int, **wish: str) -> Job:
    return report(RUN, f"eff_{n}", EffectWish(kind="k", **wish), NOW + n, by="key_1", reported_by="tool")


async def test_it_is_tied_to_the_newest_released_call_of_the_id(engine: Engine) -> None:
    async with writing(engine) as writer:
        await writer.submit(_run())
        told = await writer.submit(_report(1, tool_call_id="call_0", url="ssh://host/x", id="7", status="ok"))
        assert isinstance(told, Effect)
        assert (told.tool, told.url, told.id, told.at_us) == ("second", "ssh://host/x", "7", NOW + 1)
        long = await writer.submit(_report(2, tool_call_id=LONG))
        assert (long.tool, long.tool_call_id) == ("long", tool_call_key(LONG))
        for n, id_ in enumerate(("no", "call_1"), 3):
            refused = await writer.submit(_report(n, tool_call_id=id_))
            assert isinstance(refused, ProxyError)
            assert (refused.kind, repr(id_) in refused.message) == (Kind.INVALID_REQUEST, True)
    with engine.connect() as connection:
        assert effects_of(connection, RUN) == (told, long)
        assert effects_of(connection, RUN, 1) == (long,)
        assert effects_of(connection, RunKey("other", "r")) == ()
        kept = (
            connection.execute(select(records.c.body).where(records.c.kind == "run.effect")).scalars().all()
        )
        assert msgspec.json.decode(kept[0]) == {
            "effect_id": "eff_1",
            "kind": "k",
            "url": "ssh://host/x",
            "id": "7",
            "status": "ok",
            "tool_call_id": "call_0",
            "tool": "second",
            "by": "key_1",
            "reported_by": "tool",
        }
        assert faults_of_chain(connection) == []


async def test_a_run_takes_so_many_and_no_more(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "MOST", 5)
    async with writing(engine) as writer:
        await writer.submit(_run())
        outcomes = await asyncio.gather(*(writer.submit(_report(n)) for n in range(20)))
    kept = [outcome for outcome in outcomes if isinstance(outcome, Effect)]
    refused = {outcome.kind for outcome in outcomes if isinstance(outcome, ProxyError)}
    assert (len(kept), refused) == (5, {Kind.RATE_LIMITED})
    with engine.connect() as connection:
        assert len(effects_of(connection, RUN)) == 5
