"""A page that takes long is answered with a word, and comes when it's there: once, and only to who asked."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Response

from llm_proxy.console import later
from llm_proxy.console.aside import GIVES_WAY_S, THREADS, aside
from llm_proxy.console.later import Later
from llm_proxy.console.visit import Refused


def _visit(secret: str = "s", query: str = "", path: str = "/console/spend") -> Any:
    request = SimpleNamespace(url=SimpleNamespace(query=query), scope={"raw_path": path.encode()})
    return SimpleNamespace(session=SimpleNamespace(secret=secret), request=request, word=Response)


class _Slow:
    """A page that is there once it's told so."""

    def __init__(self) -> None:
        self.made = 0
        self.go_on = asyncio.Event()

    async def __call__(self, visit: Any) -> Response:
        self.made += 1
        await self.go_on.wait()
        if visit.request.url.query == "wrong":
            raise Refused(400, "No", "no")
        return Response(f"page {visit.session.secret} {visit.request.url.query}")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "WAIT_S", 0.02)


async def test_a_quick_page_comes_at_once() -> None:
    page = _Slow()
    page.go_on.set()
    answer = await Later().soon(page)(_visit())
    assert (answer.status_code, answer.body) == (200, b"page s ")


async def test_a_slow_page_is_made_once_and_comes_later() -> None:
    page, shown = _Slow(), Later()
    ask = shown.soon(page)
    for _ in range(3):
        word = await ask(_visit())
        assert (word.status_code, word.headers["refresh"]) == (202, "1")
    other = await ask(_visit("another"))
    assert other.status_code == 202
    page.go_on.set()
    assert (await ask(_visit())).body == b"page s "
    assert (await ask(_visit("another"))).body == b"page another "
    assert page.made == 2
    assert (await ask(_visit())).body == b"page s ", "what was fetched is made anew"
    assert page.made == 3


async def test_what_goes_wrong_is_told_to_who_comes_back() -> None:
    page, shown = _Slow(), Later()
    ask = shown.soon(page)
    assert (await ask(_visit(query="wrong"))).status_code == 202
    page.go_on.set()
    with pytest.raises(Refused, match="No"):
        await ask(_visit(query="wrong"))


async def test_so_many_are_under_way_and_no_more() -> None:
    page, shown = _Slow(), Later()
    ask = shown.soon(page)
    for number in range(later.OF_ONE + 1):
        assert (await ask(_visit("ann", str(number)))).status_code == 202
    assert page.made == later.OF_ONE, "one person doesn't take the places of others"
    for number in range(later.MOST):
        assert (await ask(_visit(f"person-{number}"))).status_code == 202
    assert page.made == later.MOST < THREADS, "what is quick waits behind what is slow"
    page.go_on.set()
    await asyncio.sleep(0)
    answer = await ask(_visit("ann", str(later.OF_ONE)))
    assert answer.body == f"page ann {later.OF_ONE}".encode(), "it comes when there's room"


async def test_a_page_that_nobody_fetches_gives_way_to_others() -> None:
    page, shown = _Slow(), Later()
    ask = shown.soon(page)
    for number in range(later.HELD // 2):
        for who in ("ann", "ben"):
            assert (await ask(_visit(who, str(number)))).status_code == 202
        page.go_on.set()
        await asyncio.sleep(0)
        page.go_on.clear()
    assert (await ask(_visit("ben", "further"))).status_code == 202
    assert (await ask(_visit("carl"))).status_code == 202
    assert page.made == later.HELD + 2
    page.go_on.set()
    assert (await ask(_visit("ann", "1"))).status_code == 200
    assert page.made == later.HELD + 2, "it was kept"
    for who in ("ben", "ann"):  # one's own went before those of others, and the oldest
        assert (await ask(_visit(who, "0"))).status_code == 200
    assert page.made == later.HELD + 4


async def test_a_page_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "KEPT_S", 0.01)
    page = _Slow()
    ask = Later().soon(page)
    assert (await ask(_visit())).status_code == 202
    page.go_on.set()
    await asyncio.sleep(0.1)
    assert (await ask(_visit())).status_code == 200
    assert page.made == 2


async def test_a_page_from_before_ones_own_change_is_made_anew() -> None:
    page, shown = _Slow(), Later()
    ask = shown.soon(page)
    waits = asyncio.ensure_future(ask(_visit("ann", "waits")))
    for who, query in (("ann", "ready"), ("ben", "ready")):
        assert (await ask(_visit(who, query))).status_code == 202
    page.go_on.set()
    await asyncio.sleep(0)
    page.go_on.clear()
    under_way = asyncio.ensure_future(ask(_visit("ann", "under way")))
    await asyncio.sleep(0)

    async def form(visit: Any) -> Response:
        raise Refused(400, visit.session.secret, "it may have done something all the same")

    with pytest.raises(Refused, match="ann"):
        await shown.changing(form)(_visit("ann"))
    assert (await under_way).status_code == 202, "who waits is told to ask again"
    assert (await waits).status_code == 202
    made = page.made
    page.go_on.set()
    assert (await ask(_visit("ben", "ready"))).status_code == 200
    assert page.made == made, "what another did is none of theirs"
    assert (await ask(_visit("ann", "ready"))).status_code == 200
    assert page.made == made + 1


async def test_what_is_made_for_nobody_keeps_its_place_until_it_ends() -> None:
    """Its thread reads on."""
    page, shown = _Slow(), Later()
    ask = shown.soon(page)
    for number in range(later.OF_ONE):
        assert (await ask(_visit("ann", str(number)))).status_code == 202

    async def form(_: Any) -> Response:
        return Response()

    waits = asyncio.ensure_future(ask(_visit("ann", "0")))
    await asyncio.sleep(0)
    await shown.changing(form)(_visit("ann"))
    assert (await ask(_visit("ann", "further"))).status_code == 202
    assert page.made == later.OF_ONE
    page.go_on.set()
    assert (await waits).status_code == 202, "it's as it was before"
    assert (await ask(_visit("ann", "0"))).status_code == 200
    assert page.made == later.OF_ONE + 1


async def test_what_is_under_way_ends_with_the_worker() -> None:
    page, shown = _Slow(), Later()
    ended: list[str] = []

    async def made(visit: Any) -> Response:
        try:
            return await page(visit)
        finally:
            ended.append(visit.session.secret)

    assert (await shown.soon(made)(_visit("ann"))).status_code == 202
    await shown.close()
    assert ended == ["ann"]


async def test_addresses_that_are_written_in_another_way_are_others() -> None:
    page, shown = _Slow(), Later()
    ask = shown.soon(page)
    for path in ("/console/runs/a%41", "/console/runs/aA"):
        assert (await ask(_visit(path=path))).status_code == 202
    assert page.made == 2
    page.go_on.set()


async def test_threads_take_turns_more_often_while_a_page_is_made() -> None:
    usual, going_on = sys.getswitchinterval(), threading.Event()

    def work() -> float:
        going_on.wait(5)
        return sys.getswitchinterval()

    both = asyncio.gather(aside(work), aside(work))
    await asyncio.sleep(0.05)
    going_on.set()
    assert await both == [pytest.approx(GIVES_WAY_S)] * 2
    assert sys.getswitchinterval() == pytest.approx(usual)
