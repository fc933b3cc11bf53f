"""Where replies go: a stream that starts with the first event, or a body that's sent whole."""

from __future__ import annotations

from collections.abc import Mapping

from budgets import Unit
from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.http.asgi import HeaderList, Send, respond
from llm_proxy.reactions.refusal import duration

_UNITS = {Unit.REQUESTS: b"requests", Unit.TOKENS: b"tokens"}


class BodySink:
    """Sends the reply as one body, once it's recorded."""

    started = False

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self._parts: list[bytes] = []

    async def release(self, data: bytes) -> None:
        self._parts.append(data)

    async def finish(self, tail: bytes) -> None:
        body = b"".join([*self._parts, tail]) if self._parts else tail
        headers: HeaderList = [(b"content-type", b"application/json"), *reply_headers(self._exchange)]
        self.started = self._exchange.replied = True
        await respond(self._send, 200, headers, body)

    async def fail(self, error: ProxyError) -> None:
        await respond_error(self._exchange, self._send, error)


class StreamSink:
    """Sends the reply as server-sent events, from the first one on."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self.started = False

    async def release(self, data: bytes) -> None:
        if not self.started:
            await self._start()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, tail: bytes) -> None:
        if not self.started:
            await self._start()
        self._exchange.replied = True
        await self._send({"type": "http.response.body", "body": tail, "more_body": False})

    async def fail(self, error: ProxyError) -> None:
        """Before the first byte a status; after it the dialect's error event, and no end marker."""
        if not self.started:
            await respond_error(self._exchange, self._send, error)
            return
        event = self._exchange.dialect.error_frame(error)
        self._exchange.replied = True
        await self._send({"type": "http.response.body", "body": event, "more_body": False})

    async def _start(self) -> None:
        self.started = True
        headers: HeaderList = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *reply_headers(self._exchange),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})


class RawSink:
    """Sends a reply of any kind on as it comes, under its own status and type."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self._status = 200
        self._headers: HeaderList = []
        self.started = False

    def head(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        """What the reply says of itself; nothing is sent yet."""
        self._status = status
        self._headers = [(b"content-type", content_type.encode("latin-1", "replace"))] if content_type else []
        for name in _PASSED:
            value = headers.get(name)
            if value:
                self._headers.append((name.encode(), value.encode("latin-1", "replace")))

    async def release(self, data: bytes) -> None:
        await self._start()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, tail: bytes) -> None:
        self._exchange.replied = True
        if self.started:
            await self._send({"type": "http.response.body", "body": tail, "more_body": False})
            return
        self.started = True
        await respond(self._send, self._status, [*self._headers, *reply_headers(self._exchange)], tail)

    async def fail(self, error: ProxyError) -> None:
        """After the first byte nothing can be said any more: the connection breaks, so that it looks cut."""
        if not self.started:
            await respond_error(self._exchange, self._send, error)
            return
        raise ReplyCut

    async def _start(self) -> None:
        if not self.started:
            self.started = True
            headers = [*self._headers, *reply_headers(self._exchange)]
            await self._send({"type": "http.response.start", "status": self._status, "headers": headers})


class ReplyCut(Exception):
    """A reply of unknown shape broke off. The server closes the connection without ending the body."""

    planned = True


_PASSED = ("content-disposition", "content-range", "location")


def reply_headers(exchange: Exchange) -> HeaderList:
    """Ids, target and what is left, on a reply that came."""
    exchange.overhead_ms = round(exchange.overhead(), 3)
    return [
        *call_headers(exchange),
        (b"x-served-by", exchange.target.encode()),
        (b"x-overhead-ms", b"%.3f" % exchange.overhead_ms),
        *_dropped(exchange),
        *([(b"x-receipts", exchange.receipts.encode())] if exchange.receipts else ()),
        *exchange.reply_headers,
        *_limits(exchange),
    ]


_MOST_DROPPED = 2_000
"""Bytes of `x-dropped-fields`; the record holds them all."""


def _dropped(exchange: Exchange) -> HeaderList:
    if not exchange.dropped:
        return []
    names = ", ".join(exchange.dropped).encode("ascii", "replace")
    return [(b"x-dropped-fields", b"".join(names.splitlines())[:_MOST_DROPPED])]


def call_headers(exchange: Exchange) -> HeaderList:
    """The ids under which the call is recorded."""
    headers: HeaderList = [(b"x-call-id", exchange.id.encode())]
    if exchange.run_id:
        headers.append((b"x-run-id", exchange.run_id.encode()))
    if exchange.attempts or exchange.target:
        tried = len(exchange.attempts) + (0 if exchange.problem or exchange.status != "open" else 1)
        headers.append((b"x-attempts", b"%d" % max(tried, 1)))
    if exchange.downgraded is not None:
        headers.append((b"x-downgraded-by", exchange.downgraded.limit.encode()))
    return headers


async def respond_error(exchange: Exchange, send: Send, error: ProxyError) -> None:
    """The error in the caller's dialect, or an upstream's own body where it's the caller's to hear."""
    headers: HeaderList = [(b"content-type", b"application/json"), *call_headers(exchange)]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, -(-error.retry_after_s // 1))))
    if not error.retryable:
        headers.append((b"x-should-retry", b"false"))
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    headers += _limits(exchange)
    body = error.body if error.body is not None else exchange.dialect.error_body(error, exchange.id)
    await respond(send, error.status, headers, body)


def _limits(exchange: Exchange) -> HeaderList:
    headers: HeaderList = []
    for left in exchange.left:
        unit = _UNITS.get(left.unit)
        if unit is None:
            continue
        headers.append((b"x-ratelimit-limit-" + unit, b"%d" % left.maximum))
        headers.append((b"x-ratelimit-remaining-" + unit, b"%d" % left.left))
        if left.resets_us is not None:
            wait = duration(left.resets_us - exchange.started_us)
            headers.append((b"x-ratelimit-reset-" + unit, wait.encode()))
    return headers
