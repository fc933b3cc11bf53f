"""The scripted model as a real HTTP server, which can also reset connections and lie about lengths.

It keeps what reached it, credentials included, for tests to look at: give it no real key.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable

import msgspec
from aiohttp import web

from llm_proxy.scripted.elsewhere import Asked
from llm_proxy.scripted.model import ScriptedModel, parse_request, play, refuse
from llm_proxy.scripted.reply import FaultKind, ScriptedFault, ScriptedReply
from llm_proxy.scripted.request import Dialect, RequestError
from llm_proxy.scripted.script import Script
from llm_proxy.scripted.text import CREATED, pretty

_KEPT = 1000
_MAX_BODY = 256 * 2**20
_FLUSH_S = 0.01
_SCRIPTED = frozenset(Dialect)
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Seen(msgspec.Struct, frozen=True):
    """One request as it arrived. Header names are lower-case; `model` is empty where the body was none."""

    model: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"
    path: str = "/v1/chat/completions"
    query: str = ""
    """As it was sent, without the `?`."""


class Stats(msgspec.Struct):
    """Counted since the start or the last reset. `client_gone`: left before their reply's end."""

    total: int = 0
    requests: dict[str, int] = msgspec.field(default_factory=Counter[str])
    bytes_in: int = 0
    bytes_out: int = 0
    in_flight: int = 0
    client_gone: int = 0


class Scripted:
    """A running scripted server: where it is, and what has reached it (the last 1000 requests)."""

    def __init__(self, script: Script) -> None:
        self._model = ScriptedModel(script)
        self._changed = asyncio.Condition()
        self.origin = ""
        self.seen: deque[Seen] = deque(maxlen=_KEPT)
        self.stats = Stats()

    @property
    def base_url(self) -> str:
        """What an OpenAI SDK takes as `base_url`."""
        return self.origin + "/v1"

    @property
    def anthropic_url(self) -> str:
        """What Anthropic's SDK takes as `base_url`."""
        return self.origin

    def reset(self) -> None:
        """Forget every request and count, `fail_times` too. What is in flight stays counted as that."""
        self._model.reset()
        self.seen.clear()
        self.stats = Stats(in_flight=self.stats.in_flight)

    async def until(self, holds: Callable[[Stats], bool]) -> None:
        """Wait until this is true of the counts."""
        async with self._changed:
            await self._changed.wait_for(lambda: holds(self.stats))

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY)
        app.add_routes(
            [
                *(web.post(f"/v1/{dialect}", self._counted) for dialect in Dialect),
                web.get("/v1/models", self._models),
                web.get("/v1/models/{id}", self._model_card),
                web.get("/stats", self._stats),
                web.get("/requests", self._requests),
                web.post("/reset", self._reset),
                web.route("*", "/v1/{path:.*}", self._counted),
            ]
        )
        return app

    async def _counted(self, request: web.Request) -> web.StreamResponse:
        self.stats.in_flight += 1
        try:
            return await self._answer(request)
        except (asyncio.CancelledError, ConnectionError):
            self.stats.client_gone += 1
            raise
        finally:
            self.stats.in_flight -= 1
            await asyncio.shield(self._notify())

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        path = request.path.removeprefix("/v1/")
        if request.method == "POST" and path in _SCRIPTED:
            model, reply = self._scripted(body, headers, Dialect(path))
        elif path.startswith("responses/"):
            model, reply = "", self._stored(request.method, path.removeprefix("responses/"))
        else:
            sort = headers.get("content-type", "")
            asked = Asked(request.method, path, request.query_string, sort, body)
            model, reply = asked.field("model"), self._model.elsewhere(asked)
        self._note(Seen(model, headers, body, request.method, request.path, request.query_string))
        await self._notify()
        return await self._send(request, reply)

    def _scripted(self, body: bytes, headers: dict[str, str], dialect: Dialect) -> tuple[str, ScriptedReply]:
        """The model that was asked for, empty where the body was no request, and the reply."""
        try:
            parsed = parse_request(body, headers, dialect)
        except RequestError as error:
            return "", refuse(error, dialect)
        return parsed.model, self._model.answer(parsed)

    def _stored(self, method: str, path: str) -> ScriptedReply:
        """A kept response: fetched, deleted, or cancelled, which changes nothing, as it is finished."""
        id_, _, action = path.partition("/")
        kept = self._model.kept.body(id_)
        if kept is None:
            missing = f"Response with id '{id_}' not found."
            return refuse(RequestError(missing, "invalid_request_error", status=404), Dialect.RESPONSES)
        if method == "DELETE":
            self._model.kept.forget(id_)
            kept = pretty({"id": id_, "object": "response", "deleted": True})
        elif (method, action) not in (("GET", ""), ("POST", "cancel")):
            unknown = f"Invalid URL ({method} /v1/responses/{path})"
            return refuse(RequestError(unknown, "unknown_url", status=404), Dialect.RESPONSES)
        return ScriptedReply(
            200, stream=False, frames=(kept,), headers=(("content-type", "application/json"),)
        )

    def _note(self, seen: Seen) -> None:
        self.seen.append(seen)
        stats = self.stats
        stats.total += 1
        stats.requests[seen.model] = stats.requests.get(seen.model, 0) + 1
        stats.bytes_in += len(seen.body)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _send(self, request: web.Request, reply: ScriptedReply) -> web.StreamResponse:
        response = web.StreamResponse(status=reply.status, headers=dict(reply.headers))
        if reply.stream:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(reply.body)
        try:
            # Headers wait for the first frame, so that latency and faults may come before them.
            async for frame in play(reply):
                if not response.prepared:
                    await response.prepare(request)
                await response.write(frame)
                self.stats.bytes_out += len(frame)
            await response.write_eof()
        except ScriptedFault as broke:
            await _break_off(request, reply, broke)
        return response

    async def _models(self, request: web.Request) -> web.Response:
        if "anthropic-version" in request.headers:
            names = self._model.names
            listed = [_anthropic_card(name) for name in names]
            page = {"data": listed, "has_more": False, "first_id": names[0], "last_id": names[-1]}
            return _json(msgspec.json.encode(page))
        models = [_card(name) for name in self._model.names]
        return _json(msgspec.json.encode({"object": "list", "data": models}))

    async def _model_card(self, request: web.Request) -> web.Response:
        card = _anthropic_card if "anthropic-version" in request.headers else _card
        return _json(msgspec.json.encode(card(request.match_info["id"])))

    async def _stats(self, request: web.Request) -> web.Response:
        return _json(msgspec.json.encode(self.stats))

    async def _requests(self, request: web.Request) -> web.Response:
        """`body` is JSON where the body was, and text where it wasn't; the newest come last."""
        limit = request.query.get("limit", "")
        kept = list(self.seen)[-int(limit) :] if limit.isdecimal() and int(limit) else list(self.seen)
        seen = [
            {
                "model": s.model,
                "headers": s.headers,
                "body": _as_json(s.body),
                "method": s.method,
                "path": s.path,
                "query": s.query,
            }
            for s in kept
        ]
        return _json(msgspec.json.encode({"requests": seen}))

    async def _reset(self, request: web.Request) -> web.Response:
        self.reset()
        return _json(b"{}")


def _card(name: str) -> dict[str, str | int]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "scripted"}


def _anthropic_card(name: str) -> dict[str, str]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _as_json(body: bytes) -> msgspec.Raw | str:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode("utf-8", "replace")
    return msgspec.Raw(body)


async def _break_off(request: web.Request, reply: ScriptedReply, broke: ScriptedFault) -> None:
    """Close as the fault says: a cut resets the connection in the middle of the next chunk."""
    transport = request.transport
    if transport is None:
        return
    if broke.fault.kind is not FaultKind.CUT:
        transport.close()
        return
    after = broke.fault.after
    if reply.stream and 0 < after < len(reply.frames):
        frame = reply.frames[after]
        transport.write(b"%x\r\n" % len(frame) + frame[: len(frame) // 2])
    # What was written must be on its way before the reset, which throws away what is still buffered.
    await asyncio.sleep(_FLUSH_S)
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    transport.abort()


@contextlib.asynccontextmanager
async def running(script: Script, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[Scripted]:
    """Serve until the block ends; port 0 takes a free one. OSError where the address is taken."""
    scripted = Scripted(script)
    runner = web.AppRunner(
        scripted.app(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None, handle_signals=False
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_address=True)
        await site.start()
        bound = runner.addresses[0][1]
        scripted.origin = f"http://{f'[{host}]' if ':' in host else host}:{bound}"
        yield scripted
    finally:
        await runner.cleanup()


async def serve_scripted(script: Script, host: str, port: int, ready: Callable[[Scripted], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called once the port is open."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    async with running(script, host, port) as scripted:
        ready(scripted)
        await stop.wait()
