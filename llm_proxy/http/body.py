"""Reads a request's body within a limit, and lets go of one that's too large without keeping it."""

from __future__ import annotations

import asyncio

from llm_proxy.body_room import Bodies
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.http.asgi import Receive
from llm_proxy.identity.headers import Headers

DRAIN_S = 20.0
DRAIN_FACTOR = 16
"""How much of a body over the limit is read and thrown away, so that its sender lives to read the answer."""


class ClientGone(Exception):
    """The caller left before its request was whole."""


async def read_body(receive: Receive, headers: Headers, limit: int, bodies: Bodies | None = None) -> bytes:
    """The whole body; `ProxyError(body_too_large)` past `limit` bytes, `ClientGone` on a disconnect.

    Where it's returned, its length is taken of `bodies`, and where not, nothing is.
    """
    announced = _length(headers)
    if announced is not None and announced > limit:
        if b"expect" not in headers:
            await _drain(receive, limit * DRAIN_FACTOR)
        raise _too_large(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= limit:
        if bodies is not None:
            bodies.take(len(body))
        return body
    return await _read_on(receive, body, limit, bodies or Bodies(limit * DRAIN_FACTOR))


async def _read_on(receive: Receive, body: bytes, limit: int, bodies: Bodies) -> bytes:
    """The body that begins with `body`, piece by piece."""
    chunks, size, taken, more = [body], len(body), 0, True
    try:
        while True:
            if size > limit:
                raise _too_large(limit)
            bodies.take(len(chunks[-1]))
            taken = size
            if not more:
                return b"".join(chunks)
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk, more = message.get("body", b""), message.get("more_body", False)
            chunks.append(chunk)
            size += len(chunk)
    except BaseException as error:
        bodies.leave(taken)
        chunks.clear()
        if more and isinstance(error, ProxyError):
            await _drain(receive, limit * DRAIN_FACTOR)
        raise


async def read_small(receive: Receive, headers: Headers, limit: int, bodies: Bodies | None = None) -> bytes:
    """As `read_body`, with a limit of the path's own, a multiple of 1,024."""
    try:
        return await read_body(receive, headers, limit, bodies)
    except ProxyError as error:
        if error.kind is Kind.BODY_TOO_LARGE:
            error.message = f"The body is over {limit >> 10} KiB: send less."
        raise


def _length(headers: Headers) -> int | None:
    value = headers.get(b"content-length", b"")
    return int(value) if value.isdigit() else None


async def _drain(receive: Receive, most: int) -> None:
    seen = 0
    try:
        async with asyncio.timeout(DRAIN_S):
            while seen < most:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                seen += len(message.get("body", b""))
    except TimeoutError:
        return


def _too_large(limit: int) -> ProxyError:
    return ProxyError(
        Kind.BODY_TOO_LARGE,
        f"The request body is over {limit >> 20} MiB (server.max_body_mb). "
        "Send less, or ask an operator to raise the limit.",
        retryable=False,
    )
