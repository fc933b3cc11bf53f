"""Pages that take long: at once one that asks again by itself, and the page as soon as it's there.

What is asked over millions of calls may take seconds. Nobody waits that long without a word, no connection is
held meanwhile, and asking again doesn't begin the work anew.
"""

from __future__ import annotations

import asyncio
from weakref import WeakSet

from fastapi import Response

from llm_proxy.console.aside import THREADS
from llm_proxy.console.visit import Page, Visit, address

WAIT_S = 0.24
MOST = THREADS - 2
"""Pages of a worker that are under way: the other threads are for what is quick."""
OF_ONE = 2
"""Pages of one session that are under way."""
HELD = 8
"""Pages of a worker that are under way, or wait to be fetched."""
KEPT_S = 5.0
"""How long a page that is there waits to be fetched, if nobody needs its place: waiting makes it no newer."""
AGAIN_S = 1

_Key = tuple[str, str]
"""A session's secret, and an address."""


class Later:
    """One per worker: `close` it when the worker ends."""

    def __init__(self) -> None:
        self._pages: dict[_Key, asyncio.Task[Response]] = {}
        self._under_way: dict[asyncio.Task[Response], str] = {}
        """Whose each is that isn't there yet; those too that nobody is to get any more."""
        self._outdated: WeakSet[asyncio.Task[Response]] = WeakSet()

    def soon(self, page: Page) -> Page:
        """The page, or within `WAIT_S` the word that it comes (status 202)."""

        async def shown(visit: Visit) -> Response:
            key = (visit.session.secret, address(visit.request))
            task = self._pages.get(key)
            if task is None and self._has_room(key[0]):
                task = self._begin(key, page, visit)
            if task is not None:
                await asyncio.wait({task}, timeout=WAIT_S)
                if task.done() and not task.cancelled() and task not in self._outdated:
                    self._drop(key, task)
                    return task.result()
            answer = visit.word("later.html", 202)
            answer.headers["refresh"] = str(AGAIN_S)
            return answer

        return shown

    def changing(self, page: Page) -> Page:
        """The page of a form. What its session asked for before would come without what the form did.

        What is read for it by then is read to its end: a thread can't be stopped. It keeps its place so long.
        """

        async def done(visit: Visit) -> Response:
            try:
                return await page(visit)
            finally:
                for key in [key for key in self._pages if key[0] == visit.session.secret]:
                    self._outdated.add(self._pages.pop(key))

        return done

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = list(self._under_way)
        self._pages.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: _Key, page: Page, visit: Visit) -> asyncio.Task[Response]:
        async def made() -> Response:
            return await page(visit)

        def ended(task: asyncio.Task[Response]) -> None:
            del self._under_way[task]
            loop.call_later(KEPT_S, self._drop, key, task)

        loop = asyncio.get_running_loop()
        task = self._pages[key] = asyncio.create_task(made())
        self._under_way[task] = key[0]
        task.add_done_callback(ended)
        return task

    def _has_room(self, secret: str) -> bool:
        """What is there and wasn't fetched gives way: the session's own first, the oldest first."""
        whose = [who for task, who in self._under_way.items() if not task.done()]
        if len(whose) >= MOST or whose.count(secret) >= OF_ONE:
            return False
        if len(self._pages) >= HELD:
            ready = [key for key, task in self._pages.items() if task.done()]
            key = next((key for key in ready if key[0] == secret), ready[0])
            self._drop(key, self._pages[key])
        return True

    def _drop(self, key: _Key, task: asyncio.Task[Response]) -> None:
        if self._pages.get(key) is task:
            del self._pages[key]
        if not task.cancelled():
            task.exception()  # that nobody came back to hear
