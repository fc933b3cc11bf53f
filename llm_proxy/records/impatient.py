"""Connections to PostgreSQL that are given up where no answer comes: a server can hang without hanging up.

A timeout of the server's own is no help against a server that was stopped or whose disk hangs, and TCP's is
none while the host behind it still acknowledges. So the client counts the seconds.
"""

from __future__ import annotations

from collections.abc import Generator
from time import monotonic
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import ConnectionPoolEntry

T = TypeVar("T")


class Impatient(psycopg.Connection[Any]):
    """Is closed, and raises `OperationalError`, where an exchange with the server takes over `patience_s`."""

    patience_s: float | None = None

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **more: Any) -> T:
        if self.patience_s is None:
            return super().wait(gen, *args, **more)
        return super().wait(self._until(gen, monotonic() + self.patience_s), *args, **more)

    def _until(self, gen: Generator[Any, Any, T], deadline: float) -> Generator[Any, Any, T]:
        """What `gen` does. psycopg tells it ten times a second that there is nothing to read yet."""
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {self.patience_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


def make_impatient(engine: Engine, patience_s: float | None) -> None:
    """Gives the engine's connections so much patience each time they leave the pool; None is no end of it."""

    def connect(_dialect: Dialect, _entry: ConnectionPoolEntry, args: Any, named: Any) -> Impatient:
        return Impatient.connect(*args, **named)

    def checkout(connection: Any, *_: Any) -> None:
        connection.patience_s = patience_s

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "checkout", checkout)
