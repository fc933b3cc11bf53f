"""Ends a call whose caller left, or may call no more: the upstream stops at once; what was used counts."""

from __future__ import annotations

import asyncio
from types import TracebackType

from llm_proxy.exchange import Exchange
from llm_proxy.http.asgi import Receive
from llm_proxy.http.body import ClientGone

AFTER_S = 0.05
"""Most calls to a fast model end before this; only the others pay for a task that waits."""


class Watch:
    """Around a call whose body was read: turns a disconnect into cancellation, then into `ClientGone`.

    A call that was ended from outside (see `standing`) raises the `ProxyError` that says why.
    A call that drains goes on where a target is at work on it: the server drops what is released to a caller
    who left.
    """

    __slots__ = ("_exchange", "_receive", "_task", "_timer", "_waiter")

    def __init__(self, exchange: Exchange, receive: Receive) -> None:
        self._exchange = exchange
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watch:
        self._task = asyncio.current_task()
        assert self._task is not None
        if self._exchange.stopped is not None:
            raise self._exchange.stopped
        self._exchange.task = self._task
        self._timer = self._task.get_loop().call_later(AFTER_S, self._start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._waiter is not None:
            self._waiter.cancel()
            self._waiter = None  # what it raised leads back here: the call would wait for the gc
        exchange, task = self._exchange, self._task
        exchange.task = None
        if isinstance(error, asyncio.CancelledError) and (exchange.client_gone or exchange.stopped):
            assert task is not None
            task.uncancel()
            if exchange.client_gone:
                raise ClientGone from None
            assert exchange.stopped is not None
            raise exchange.stopped from None

    def _start(self) -> None:
        self._waiter = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        if self._exchange.replied:
            return
        self._exchange.client_gone = True
        if self._exchange.stopped is not None:
            return  # it is being ended already
        if self._exchange.drains and self._exchange.asking:
            return
        assert self._task is not None
        self._task.cancel()
