"""News for open pages: what they're told, when it ends, and how many listen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp
import anyio
import pytest
from fastapi import Response
from sqlalchemy.exc import OperationalError
from starlette.types import Message

from llm_proxy.admin import verifying
from llm_proxy.admin.errors import Conflict
from llm_proxy.audit.findings import Report
from llm_proxy.console import live
from llm_proxy.console.assets import Assets
from llm_proxy.console.audit import AuditPages
from llm_proxy.console.live import MOST_OPEN, Watching
from llm_proxy.console.pages import Pages
from llm_proxy.http.guarded import GuardedProtocol
from tests.console.house import Browser, house
from tests.proxy import until

CHANGED = b"event: changed\ndata: \n\n"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.001)
    monkeypatch.setattr(GuardedProtocol, "stopping", False)  # by a server of another test


async def _still() -> str:
    return "as it was"


async def _yes() -> bool:
    return True


async def _sent(answer: Response) -> bytes:
    """All of an answer, as a server would send it."""
    pieces: list[bytes] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        pieces.append(message.get("body", b""))

    async with asyncio.timeout(5):
        await answer({"type": "http", "path": "/", "asgi": {"spec_version": "2.4"}}, receive, send)
    return b"".join(pieces)


async def _told(look: Callable[[], Awaitable[str]] = _still, signed_in: Any = _yes) -> bytes:
    return await _sent(Watching().changes(look, signed_in))


async def test_a_page_fetches_what_changed_before_it_listened_and_asks_again_by_itself() -> None:
    told = await _told()
    assert told.count(CHANGED) == 1
    assert told.startswith(b"retry: 1000\n" + CHANGED)
    assert told.count(b": still here") == (live.LOOKS - 1) // live.CHECK_EVERY


async def test_every_change_is_told() -> None:
    seen = iter(["a", "a", "b", "b", "c", *["c"] * live.LOOKS])

    async def look() -> str:
        return next(seen)

    assert (await _told(look)).count(CHANGED) == 3


async def test_it_ends_with_its_session() -> None:
    asked: list[bool] = []

    async def signed_in() -> bool:
        asked.append(not asked)
        return asked[-1]

    told = await _told(signed_in=signed_in)
    assert asked == [True, False]
    assert told.count(b": still here") == 1


async def test_it_ends_when_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    async def look() -> str:
        looks.append("")
        if len(looks) == 3:
            monkeypatch.setattr(GuardedProtocol, "stopping", True)
        return ""

    await _told(look)
    assert len(looks) == 3


async def test_it_ends_where_the_store_cant_be_read() -> None:
    async def look() -> str:
        raise OperationalError("", {}, Exception())

    assert await _told(look) == b"retry: 10000\n\n"


async def _listening(stack: AsyncExitStack, browser: Browser) -> aiohttp.ClientResponse:
    reply = await stack.enter_async_context(browser.listen("/console/approvals/live"))
    if reply.status == 200:
        assert await reply.content.readuntil(b"\n\n")
    return reply


async def test_so_many_listen_and_a_server_that_stops_waits_for_none(tmp_path: Path) -> None:
    async with (
        AsyncExitStack() as stack,
        house(tmp_path, server={"drain_s": 15}) as built,
        built.browser() as browser,
    ):
        found = [await _listening(stack, browser) for _ in range(MOST_OPEN + 1)]
        assert [reply.status for reply in found] == [200] * MOST_OPEN + [503]
        found[0].close()

        async def again() -> bool:
            return (await _listening(stack, browser)).status == 200

        await until(again, "one more listens")
        began = time.monotonic()
        await built.proxy.terminate()
        assert time.monotonic() - began < 8


class Auditing(NamedTuple):
    pages: AuditPages
    slot: asyncio.Lock
    """Held while one verifies."""
    go_on: asyncio.Event
    """Ends a verification."""


@pytest.fixture
async def auditing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Auditing]:
    go_on, loop = asyncio.Event(), asyncio.get_running_loop()

    def verified(*_: Any, **__: Any) -> Report:
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(30)
        raise OperationalError("", {}, Exception())

    class Moment:
        def __init__(self, _: Any) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(verifying, "verified", verified)
    monkeypatch.setattr(verifying, "one_moment", Moment)
    services = SimpleNamespace(receipts=SimpleNamespace(key=None))
    worker: Any = SimpleNamespace(config=None, engine=None, services=services, auditing=asyncio.Lock())
    yield Auditing(AuditPages(worker, Pages(Assets())), worker.auditing, go_on)
    go_on.set()


async def test_one_verification_at_a_time(auditing: Auditing) -> None:
    pages, slot, go_on = auditing
    visit: Any = None
    first = asyncio.create_task(_sent(await pages.verify(visit)))
    await until(slot.locked, "the first has begun")
    with pytest.raises(Conflict):
        await pages.verify(visit)
    go_on.set()
    assert b"event: report" in await first
    assert b"event: report" in await _sent(await pages.verify(visit))


async def test_a_verification_that_nobody_waits_for_is_one_until_its_thread_ends(auditing: Auditing) -> None:
    pages, slot, go_on = auditing
    visit: Any = None
    answer = await pages.verify(visit)

    async def left() -> None:
        async with anyio.create_task_group() as group:  # as an answer is sent
            group.start_soon(_sent, answer)
            await until(slot.locked, "it has begun")
            group.cancel_scope.cancel()

    leaving = asyncio.create_task(left())
    await asyncio.wait({leaving}, timeout=0.2)
    assert slot.locked(), "another would read all of it beside this one"
    go_on.set()
    await leaving
    assert not slot.locked()
