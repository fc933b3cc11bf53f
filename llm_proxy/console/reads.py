"""What the pages share to read the store: a thread, a connection, the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from llm_proxy.config.choices import Role
from llm_proxy.console.aside import aside
from llm_proxy.console.visit import Page
from llm_proxy.worker import Worker

T = TypeVar("T")


class Add(Protocol):
    """Adds a page, and who may see it."""

    def __call__(self, method: str, path: str, page: Page, roles: frozenset[Role]) -> None: ...


class Store:
    """Reads in threads, each with a connection of its own."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.config = worker.config

    async def read(self, what: Callable[[Connection], T]) -> T:
        def within() -> T:
            with self.worker.engine.connect() as connection:
                return what(connection)

        return await aside(within)

    async def within(self, what: Callable[[], T]) -> T:
        """In a thread, for what opens its own connection."""
        return await aside(what)

    def now_us(self) -> int:
        return self.worker.services.now_us()
