"""Where calls are placed in the tree of runs, and what is read for it; over SQLite and a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, Engine

from budgets import RunRef
from llm_proxy import journal
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.identity.caller import Agent, Caller
from llm_proxy.identity.headers import Hints
from llm_proxy.identity.lineage import ALONE
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.ids import uuid7
from llm_proxy.records.standing import RunEnded
from llm_proxy.records.writer import Writer
from llm_proxy.runs import lookup, tree
from llm_proxy.runs.lookup import RunLookup
from llm_proxy.runs.tree import RunTree
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, Clock, body_of, outage, writing

pytest_plugins = ["tests.postgres"]

T = TypeVar("T")
BOT, OTHER = Agent("bot", team="crew"), Agent("other")
TOKENS = {"lp-root": Caller(BOT, "key-1", "root"), "lp-key": Caller(BOT, "key-2")}


class Counting(RunLookup):
    """Counts what is asked."""

    asked = 0

    async def ask(self, read: Callable[[Connection], T]) -> T:
        self.asked += 1
        return await super().ask(read)


@dataclass
class Desk:
    """Places calls as the pipeline does, and writes their opening."""

    writer: Writer
    lookup: Counting
    tree: RunTree
    clock: Clock
    ended: dict[tuple[str, str], RunEnded] = field(default_factory=dict[tuple[str, str], RunEnded])

    async def place(self, run: str, agent: Agent = BOT, *, inferred: bool = False, **hints: Any) -> Exchange:
        now = self.clock()
        exchange = Exchange(uuid7(now), now, OPENAI_CHAT, clock0=0.0, caller=Caller(agent, "key"))
        exchange.request = OPENAI_CHAT.parse(body_of())
        exchange.hints = Hints(**hints)
        exchange.run_id, exchange.run_inferred = run, inferred
        exchange.parent_run_id = exchange.hints.parent_run_id
        await self.tree.place(exchange)
        return exchange

    async def call(self, run: str, agent: Agent = BOT, **hints: Any) -> Exchange:
        exchange = await self.place(run, agent, **hints)
        await self.write(exchange)
        return exchange

    async def write(self, exchange: Exchange) -> None:
        wrote = Wrote(None, journal.opened(exchange))
        await self.writer.submit(Job(lambda _: wrote))


@asynccontextmanager
async def _desk(engine: Engine) -> AsyncGenerator[Desk]:
    clock = Clock()

    async def shown(key: str) -> Caller:
        if key not in TOKENS:
            raise ProxyError(Kind.INVALID_CREDENTIAL, "unknown")
        return TOKENS[key]

    async with writing(engine, clock) as writer:
        asking = Counting(engine, lambda: writer.healthy)
        ended: dict[tuple[str, str], RunEnded] = {}
        yield Desk(writer, asking, RunTree(asking, shown, lambda: ended, clock), clock, ended)
        asking.close()


@pytest.fixture
async def desk(engine: Engine) -> AsyncIterator[Desk]:
    async with _desk(engine) as opened:
        yield opened


async def test_nothing_is_read_for_a_run_of_one_call_nor_twice_for_another(desk: Desk) -> None:
    assert (await desk.place("call-1", inferred=True)).lineage is ALONE
    assert desk.lookup.asked == 0
    assert (await desk.call("r")).lineage is ALONE
    for _ in range(5):
        assert (await desk.place("r", parent_run_id="later")).lineage is ALONE
    assert desk.lookup.asked == 2, "its first call, and the second, which finds its row"


async def test_a_run_of_the_same_agent_is_a_parent_for_good(desk: Desk) -> None:
    await desk.call("root")
    first = await desk.call("child", parent_run_id="root")
    assert first.lineage.ancestors == (RunRef("bot", "root", "crew"),)
    others: list[dict[str, Any]] = [{}, {"parent_run_id": "elsewhere"}, {"run_token": "lp-nonsense"}]
    for hints in others:
        again = await desk.place("child", **hints)
        assert again.lineage.ancestors == first.lineage.ancestors
        assert again.parent_run_id == "root"
    grand = await desk.call("grand", parent_run_id="child")
    assert [run.run for run in grand.lineage.ancestors] == ["child", "root"]


async def test_an_unknown_run_and_anothers_are_trace_links(desk: Desk) -> None:
    await desk.call("theirs", OTHER)
    for parent in ("nobody", "theirs", "self"):
        exchange = await desk.call("self" if parent == "self" else f"c-{parent}", parent_run_id=parent)
        assert exchange.lineage is ALONE
        assert exchange.parent_run_id == parent
    await desk.call("nobody")
    assert (await desk.place("c-nobody", parent_run_id="nobody")).lineage is ALONE, "fixed by its first call"


async def test_a_token_makes_anothers_run_the_parent(desk: Desk) -> None:
    await desk.call("root")
    exchange = await desk.call("mine", OTHER, run_token="lp-root")
    assert exchange.lineage.ancestors == (RunRef("bot", "root", "crew"),)
    read = await desk.place("mine", OTHER)
    assert read.lineage.ancestors == exchange.lineage.ancestors
    below = await desk.place("below", OTHER, parent_run_id="mine")
    assert [(run.agent, run.run) for run in below.lineage.ancestors] == [("other", "mine"), ("bot", "root")]
    with pytest.raises(ProxyError) as unknown:
        await desk.place("new", OTHER, run_token="lp-guess")
    assert unknown.value.kind is Kind.INVALID_CREDENTIAL
    with pytest.raises(ProxyError, match="bound to no run"):
        await desk.place("new", OTHER, run_token="lp-key")


async def test_a_tokens_run_counts_before_its_first_call(desk: Desk) -> None:
    exchange = await desk.call("mine", OTHER, run_token="lp-root")
    assert exchange.lineage.ancestors == (RunRef("bot", "root", "crew"),)
    [ref] = (await desk.place("mine", OTHER)).lineage.ancestors
    assert (ref.agent, ref.run) == ("bot", "root")


async def test_a_run_of_one_call_stands_below_whom_it_names(desk: Desk) -> None:
    await desk.call("root")
    one = await desk.call("call-1", inferred=True, parent_run_id="root")
    assert one.lineage.ancestors == (RunRef("bot", "root", "crew"),)


async def test_calls_at_once_share_one_read_and_keep_the_parent(desk: Desk) -> None:
    await desk.call("root")
    await desk.place("root")
    before = desk.lookup.asked
    calls = await asyncio.gather(*(desk.place("child", parent_run_id="root") for _ in range(50)))
    assert {call.lineage.ancestors for call in calls} == {(RunRef("bot", "root", "crew"),)}
    assert desk.lookup.asked == before + 1
    bare = await desk.place("child")  # in flight with the first, and names no parent
    assert bare.lineage.ancestors == calls[0].lineage.ancestors
    for call in (bare, *calls):
        await desk.write(call)
    assert (await desk.place("child")).lineage.ancestors == calls[0].lineage.ancestors


async def test_places_are_remembered_up_to_a_most(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_REMEMBERED", 4)
    await desk.call("root")
    for n in range(20):
        await desk.place(f"child-{n}", parent_run_id="root")
    assert len(desk.tree._known) == 4
    before = desk.lookup.asked
    await desk.place("child-19")
    assert desk.lookup.asked == before, "the latest is at hand"


async def test_what_ended_is_refused_with_why_and_when(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.call("root")
    await desk.call("child", parent_run_id="root")
    await desk.place("child")
    desk.ended["bot", "root"] = RunEnded("bot", "root", NOW, "enough")
    of_child: dict[str, Any] = {"parent_run_id": "child"}
    for run, hints in (("root", {}), ("child", {}), ("fresh", of_child)):
        with pytest.raises(ProxyError, match="2027-01-15T08:00:00Z: enough") as refused:
            await desk.place(run, **hints)
        assert refused.value.kind is Kind.RUN_ENDED
    desk.ended.clear()
    await desk.place("child")
    monkeypatch.setattr(tree, "_GOOD_FOR_S", 0.0)
    before = desk.lookup.asked
    await desk.place("child")
    assert desk.lookup.asked == before + 1, "what was read long ago is read again"


async def test_a_refused_first_call_keeps_the_lineage(desk: Desk) -> None:
    await desk.call("root")
    desk.ended["bot", "root"] = RunEnded("bot", "root", NOW, "enough")
    exchange = Exchange("c", NOW, OPENAI_CHAT, clock0=0.0, caller=Caller(BOT, "key"))
    exchange.run_id, exchange.hints = "child", Hints(parent_run_id="root")
    with pytest.raises(ProxyError, match="is part of run 'root'"):
        await desk.tree.place(exchange)
    assert exchange.placed
    assert exchange.lineage.ancestors == (RunRef("bot", "root", "crew"),)


async def test_a_verified_user_of_a_run_stands_in_all_below_it(desk: Desk) -> None:
    root = await desk.place("root")
    root.user_id, root.user_verified = "ada", True
    await desk.write(root)
    ways: dict[str, dict[str, Any]] = {
        "root": {},
        "child": {"parent_run_id": "root"},
        "claims": {"run_token": "lp-root"},
    }
    for run, hints in ways.items():
        exchange = await desk.call(run, **hints)
        assert (exchange.user_id, exchange.user_verified) == ("ada", True)
    claimed = Exchange("c", NOW, OPENAI_CHAT, clock0=0.0, caller=Caller(BOT, "key"), user_id="bob")
    claimed.run_id = "claims"
    await desk.tree.place(claimed)
    assert (claimed.user_id, claimed.user_verified) == ("ada", True), "a header can't take its place"


async def test_no_run_stands_deeper_than_32(desk: Desk) -> None:
    await desk.call("r0")
    for depth in range(1, 33):
        await desk.call(f"r{depth}", parent_run_id=f"r{depth - 1}")
    with pytest.raises(ProxyError, match="32 runs deep"):
        await desk.place("r33", parent_run_id="r32")


async def test_a_store_that_is_down_places_nobody(
    engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_DOWN_S", 0.2)
    async with _desk(engine) as desk:
        await desk.call("r")
        await desk.place("r")
        if not url.startswith("sqlite"):  # which can be read while it can't be written
            with outage(url, engine):
                with pytest.raises(ProxyError) as down:
                    await desk.place("other")
                assert down.value.kind is Kind.STORE_UNAVAILABLE
                assert (await desk.place("r")).lineage is ALONE, "what is at hand needs no store"
            await asyncio.sleep(0.3)
        desk.writer.healthy = False
        with pytest.raises(ProxyError) as unhealthy:
            await desk.place("other")
        assert unhealthy.value.kind is Kind.STORE_UNAVAILABLE
        desk.writer.healthy = True
        assert (await desk.place("other")).lineage is ALONE
