"""A webhook's endpoint for tests: checks every signature by itself, and answers as a test tells it to."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

PLAIN = "a plain secret of some length"
SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
"""As Standard Webhooks has them: its key is the bytes behind the prefix."""
HANG = -1
CLOSE = -2


@dataclass(frozen=True)
class Got:
    """One try, as it came."""

    id: str
    at_s: int
    path: str
    body: dict[str, Any]
    answered: int


@dataclass
class Receiver:
    """`answer` says what the nth try (from 0) of a delivery gets: a status, `HANG` or `CLOSE`."""

    secret: str
    answer: Callable[[str, int], int] = lambda _id, _n: 200
    tries: list[Got] = field(default_factory=list[Got])
    faults: list[str] = field(default_factory=list[str])
    port: int = 0
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def taken(self) -> list[Got]:
        """What was answered 2xx."""
        return [got for got in self.tries if 200 <= got.answered < 300]

    def events(self) -> list[str]:
        return [got.body["type"] for got in self.taken]

    async def open(self) -> None:
        """Listens, on the port of before where there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
                raw = await reader.readexactly(int(headers["content-length"]))
                if not await self._answer(first, headers, raw, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(
        self, first: str, headers: dict[str, str], raw: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        self._check(first, headers, raw)
        id_ = headers["webhook-id"]
        before = sum(got.id == id_ for got in self.tries)
        status = self.answer(id_, before)
        path = first.split(" ")[1]
        self.tries.append(Got(id_, int(headers["webhook-timestamp"]), path, json.loads(raw), status))
        if status == CLOSE:
            return False
        if status == HANG:
            await asyncio.sleep(3600)
        location = f"location: {self.url}/elsewhere\r\n" if 300 <= status < 400 else ""
        body = b"x" * 100_000 if status == 500 else b""
        writer.write(f"HTTP/1.1 {status} X\r\n{location}content-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        return True

    def _check(self, first: str, headers: dict[str, str], raw: bytes) -> None:
        """The rules of Standard Webhooks, written down anew."""
        secret = self.secret
        key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
        signed = headers["webhook-id"] + "." + headers["webhook-timestamp"] + "." + raw.decode()
        mac = base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest()).decode()
        if headers["webhook-signature"] != f"v1,{mac}":
            self.faults.append("the signature is wrong")
        if abs(int(headers["webhook-timestamp"]) - time.time()) > 60:
            self.faults.append("the time is not that of the try")
        if not first.startswith("POST ") or headers["content-type"] != "application/json":
            self.faults.append(f"not a POST of JSON: {first}")
        body = json.loads(raw)
        if set(body) != {"type", "timestamp", "data"} or not body["timestamp"].endswith("Z"):
            self.faults.append(f"not the form of an event: {sorted(body)}")


@contextlib.asynccontextmanager
async def receiving(secret: str = SECRET) -> AsyncGenerator[Receiver]:
    """Listens until the block ends; every try must have been signed and formed well."""
    receiver = Receiver(secret)
    await receiver.open()
    try:
        yield receiver
        assert receiver.faults == []
    finally:
        await receiver.close()
