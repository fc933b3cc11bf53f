"""The floor: a bare pass-through of uvicorn, a raw ASGI endpoint and the aiohttp client, and nothing else.

`python -m bench.bare --port P --upstream URL`. Request and whole reply are parsed as JSON, as any proxy must;
streams are forwarded chunk by chunk as they come.
"""

from __future__ import annotations

import argparse
from http import HTTPStatus

import aiohttp
import msgspec
import uvicorn
from starlette.types import Receive, Scope, Send

from bench.dialects import SHAPES

_decode = msgspec.json.Decoder().decode
_PATHS = frozenset(shape.path for shape in SHAPES.values())


class Bare:
    """The ASGI app. One client session for the life of the server."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["path"] in _PATHS:
            await self._complete(self._upstream + scope["path"], receive, send)
        else:
            await _respond(send, HTTPStatus.OK, b"{}")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        ) as self._session:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _complete(self, url: str, receive: Receive, send: Send) -> None:
        assert self._session is not None
        body = await _read(receive)
        _decode(body)
        headers = {"content-type": "application/json"}
        async with self._session.post(url, data=body, headers=headers) as reply:
            if reply.content_type == "text/event-stream":
                await _forward(reply, send)
                return
            content = await reply.read()
            _decode(content)
            await _respond(send, reply.status, content)


async def _read(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message["body"]
    if not message.get("more_body"):
        return body
    parts = [body]
    while message.get("more_body"):
        message = await receive()
        parts.append(message["body"])
    return b"".join(parts)


async def _forward(reply: aiohttp.ClientResponse, send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    async for chunk in reply.content.iter_any():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _respond(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    parser = argparse.ArgumentParser(description="bare pass-through")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True, help="e.g. http://127.0.0.1:9000")
    arguments = parser.parse_args()
    uvicorn.run(
        Bare(arguments.upstream),
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
