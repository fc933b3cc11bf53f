"""Who may call now: what one worker makes of the store's word, and whom it ends."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy.exc import OperationalError

from budgets import RunRef
from llm_proxy import standing as module
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.identity.caller import Agent, Caller
from llm_proxy.identity.keyring import Credential, Keyring, hash_key
from llm_proxy.identity.lineage import Lineage
from llm_proxy.records import standing as store
from llm_proxy.standing import Standing
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from tests.proxy import until
from tests.stores import NOW, Clock

FROZEN = store.Frozen("bot", NOW, "dana@example.com", "it loops.")


class Store:
    """What the store says; how far back it was asked."""

    def __init__(self) -> None:
        self.says = store.Standing()
        self.asked: list[int] = []
        self.down = False

    def __call__(self, since_us: int) -> store.Standing:
        self.asked.append(since_us)
        if self.down:
            raise OperationalError("SELECT", None, Exception("no route"))
        return self.says


class Desk:
    def __init__(self) -> None:
        self.store, self.clock = Store(), Clock()
        self.ring = Keyring({"bot": Agent("bot")}, [])
        self.ring.remember([Credential("k", "bot", hash_key("lp-1"))])
        self.standing = Standing(self.ring, self.store, self.clock)

    def call(self, agent: str = "bot", run: str = "r", **more: object) -> Exchange:
        caller = Caller(Agent(agent), str(more.pop("key", "k")), expires_us=more.pop("expires_us", None))  # type: ignore[arg-type]
        exchange = Exchange(f"call-{agent}-{run}", NOW, OPENAI_CHAT, clock0=0.0, caller=caller)
        exchange.run_id = run
        for name, value in more.items():
            setattr(exchange, name, value)
        self.standing.enter(exchange)
        return exchange

    async def look(self, **says: object) -> None:
        self.store.says = store.Standing(**says)  # type: ignore[arg-type]
        await self.standing.refresh()


def code(exchange: Exchange) -> str:
    return exchange.stopped.kind.value if exchange.stopped else ""


async def test_a_frozen_agent_is_refused_and_told_why_and_whom_to_ask() -> None:
    desk = Desk()
    other = desk.call("other")
    mine = desk.call()
    await desk.look(frozen=(FROZEN,))
    assert (code(mine), code(other)) == ("agent_frozen", "")
    with pytest.raises(ProxyError) as refused:
        desk.call()
    error = refused.value
    assert (error.kind, error.status, error.retryable) == (Kind.AGENT_FROZEN, 403, False)
    assert error.message == (
        "Agent 'bot' is frozen since 2027-01-15T08:00:00Z: it loops. Ask dana@example.com to thaw it."
    )
    await desk.look()
    assert code(desk.call(run="again")) == ""


async def test_by_the_admin_token_no_person_is_named() -> None:
    desk = Desk()
    await desk.look(frozen=(FROZEN._replace(by="admin_token"),))
    with pytest.raises(ProxyError, match=r"it loops\. Ask an operator to thaw it\.$"):
        desk.call()


async def test_a_revoked_key_ends_its_calls_and_no_others() -> None:
    desk = Desk()
    mine, other = desk.call(), desk.call(run="r2", key="k2")
    await desk.look(keys=(store.KeyChange("k", None, NOW),))
    assert (code(mine), code(other)) == ("invalid_credential", "")
    with pytest.raises(ProxyError, match="k was revoked"):
        desk.ring.find("lp-1", NOW)


async def test_a_key_whose_end_moved_ends_its_calls_then() -> None:
    desk = Desk()
    mine = desk.call()
    await desk.look(keys=(store.KeyChange("k", NOW + 1_000, None),))
    assert code(mine) == ""
    await desk.look()
    desk.clock.now = NOW + 2_000
    await desk.look()
    assert code(mine) == "invalid_credential"
    assert mine.stopped is not None
    assert "has expired" in mine.stopped.message


@pytest.mark.parametrize(
    ("lineage", "run", "ended"),
    [
        (Lineage(), "r", True),
        (Lineage(), "r2", False),
        (Lineage(ancestors=(RunRef("bot", "top"), RunRef("bot", "r"))), "child", True),
        (Lineage(ancestors=(RunRef("other", "r"),)), "child", False),
    ],
)
async def test_an_ended_run_ends_its_calls_and_those_below_it(
    lineage: Lineage, run: str, *, ended: bool
) -> None:
    desk = Desk()
    mine = desk.call(run=run, lineage=lineage)
    await desk.look(ended=(store.RunEnded("bot", "r", NOW, "done"),))
    assert code(mine) == ("run_ended" if ended else "")
    if mine.stopped:
        assert "ended at 2027-01-15T08:00:00Z: done." in mine.stopped.message


async def test_an_envelope_that_expires_ends_its_calls() -> None:
    desk = Desk()
    mine = desk.call(lineage=Lineage(expires_us=NOW + 1_000))
    await desk.look()
    assert code(mine) == ""
    desk.clock.now = NOW + 1_000
    await desk.look()
    assert code(mine) == "run_ended"


async def test_while_the_store_is_down_what_was_known_stands_and_keys_still_expire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    desk = Desk()
    await desk.look(frozen=(FROZEN._replace(agent_id="other"),))
    mine = desk.call(expires_us=NOW + 1_000)
    desk.store.down = True
    running = asyncio.create_task(desk.standing.run())
    await until(lambda: len(desk.store.asked) > 3, "it looks on")
    with pytest.raises(ProxyError, match="is frozen"):
        desk.call("other")
    assert code(mine) == ""
    desk.clock.now = NOW + 1_000
    await until(lambda: mine.stopped, "the call is ended")
    assert not running.done()
    desk.store.down = False
    desk.store.says = store.Standing()
    await until(lambda: _enters(desk, "other"), "the agent is let in again")
    running.cancel()


async def test_it_looks_back_from_the_last_look_that_succeeded() -> None:
    desk = Desk()
    await desk.look()
    desk.store.down = True
    desk.clock.now = NOW + 3_600_000_000
    with pytest.raises(ProxyError, match="store"):
        await desk.look()
    desk.store.down = False
    await desk.look()
    first, _, third = desk.store.asked
    assert first == third < NOW


async def test_a_call_is_ended_once_and_not_once_it_comes_to_its_own_end() -> None:
    desk = Desk()
    asyncio_task = asyncio.create_task(asyncio.sleep(30))
    mine = desk.call(task=asyncio_task)
    await desk.look(frozen=(FROZEN,))
    first = mine.stopped
    await desk.look(frozen=(FROZEN,), ended=(store.RunEnded("bot", "r", NOW, ""),))
    assert mine.stopped is first
    assert asyncio_task.cancelling() == 1
    with pytest.raises(asyncio.CancelledError):
        await asyncio_task
    await desk.look()
    closing, gone = desk.call(run="closing"), desk.call(run="gone", client_gone=True)
    draining = desk.call(run="draining", client_gone=True, drains=True, asking=True)
    desk.standing.leave(closing)
    await desk.look(frozen=(FROZEN,))
    assert [code(one) for one in (closing, gone, draining)] == ["", "", "agent_frozen"]


async def test_closing_waits_for_the_look_that_is_under_way() -> None:
    """Its connection is dropped right after, which no other thread may be using then."""
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def read(_since_us: int) -> store.Standing:
        begun.set()
        may_end.wait(10)
        ended.set()
        return store.Standing()

    standing = Standing(Keyring({}, []), read, Clock())
    looking = asyncio.create_task(standing.refresh())
    await asyncio.to_thread(begun.wait, 10)
    looking.cancel()
    threading.Timer(0.05, may_end.set).start()
    standing.close()
    assert ended.is_set()
    with pytest.raises(asyncio.CancelledError):
        await looking


async def test_issued_keys_are_looked_up_anew_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    monkeypatch.setattr(module, "FORGET_S", 0.05)
    desk = Desk()
    running = asyncio.create_task(desk.standing.run())
    await until(lambda: desk.ring.find("lp-1", NOW) is None, "the key is forgotten")
    running.cancel()


def _enters(desk: Desk, agent: str) -> bool:
    try:
        desk.call(agent)
    except ProxyError:
        return False
    return True
