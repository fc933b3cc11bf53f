"""A way to a PostgreSQL server that can be cut: the server lives on, and nobody hears its answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import make_url

from tests.proxy import until


class Relay:
    """A way to a PostgreSQL server's socket that can be closed and opened again."""

    def __init__(self, folder: str, name: str, server: str) -> None:
        self._path = f"{folder}/{name}"
        self._server = f"{server}/{name}"
        self._listening: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._listening = await asyncio.start_unix_server(self._join, self._path)

    async def close(self) -> None:
        """Refuses new connections and cuts those that stand; nothing where it's closed already."""
        if self._listening is None or not self._listening.is_serving():
            return
        self._listening.close()
        await self.cut()
        os.unlink(self._path)

    async def cut(self) -> None:
        """Cuts those that stand; new ones are taken."""
        stood = set(self._open)
        for writer in stood:
            writer.transport.abort()
        await until(lambda: not self._open & stood, "every connection is cut")

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await asyncio.open_unix_connection(self._server)
        self._open |= {writer, server[1]}
        ways = [asyncio.create_task(_pump(reader, server[1])), asyncio.create_task(_pump(server[0], writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, server[1]):
            end.transport.abort()
        await asyncio.gather(*ways)
        self._open -= {writer, server[1]}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def relayed(url: str) -> AsyncGenerator[tuple[Relay, str]]:
    """A relay to the server of `url`, and the URL that goes through it."""
    parsed = make_url(url)
    server = parsed.query["host"]
    assert isinstance(server, str)
    name = f".s.PGSQL.{parsed.query.get('port', parsed.port or 5432)}"
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:  # a socket's path must be short
        relay = Relay(folder, name, server)
        await relay.open()
        try:
            yield relay, parsed.update_query_dict({"host": folder}).render_as_string(hide_password=False)
        finally:
            await relay.close()
