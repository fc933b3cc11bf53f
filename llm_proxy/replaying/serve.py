"""A recorded run's replies as a raw ASGI app, until the agent has had them all."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llm_proxy.errors import Kind, ProxyError, failed_inside
from llm_proxy.http.asgi import HeaderList, Receive, Scope, Send, respond
from llm_proxy.http.body import ClientGone, read_body
from llm_proxy.identity.headers import Headers, credential
from llm_proxy.identity.keyring import hash_key
from llm_proxy.replaying.compare import asked
from llm_proxy.replaying.matching import Match, Matching
from llm_proxy.replaying.recorded import Recorded, Run
from llm_proxy.replaying.replies import Reply, reply_to
from llm_proxy.replaying.report import Divergence, Log, Report
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_chat.errors import models_body

_SERVED = {dialect.path: dialect for dialect in DIALECTS.values() if dialect.path and not dialect.raw}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a run is replayed. `speed` 1 is as it was, 2 twice as fast, 0 at once."""

    keys: Sequence[str] = field(repr=False)
    """SHA-256 (hex) of every key that opens it."""
    speed: float = 0
    strict: bool = False
    """The first divergence is answered with an error, and ends it."""
    linger_s: float = 10
    """How long it goes on answering once every call was asked for."""
    max_body: int


class Broken(Exception):
    """The record of a reply ends here: the connection is closed without an end of the body."""


class Replay:
    """The ASGI app. `tell` hears of each divergence as it happens."""

    def __init__(self, run: Run, rules: Rules, tell: Callable[[Divergence], None]) -> None:
        self._run = run
        self._rules = rules
        self._tell = tell
        self._matching = Matching(run.calls)
        self._log = Log(run)
        self._moved = asyncio.Event()
        self._ends = False
        self._busy = 0

    def report(self) -> Report:
        return self._log.report(self._matching.ahead)

    def end(self) -> None:
        """It needs not wait for more."""
        self._ends = True
        self._moved.set()

    async def finished(self) -> None:
        """Returns once every call was answered and a while passed, or it was ended."""
        while not self._ends:
            self._moved.clear()
            wait = None if self._matching.ahead or self._busy else self._rules.linger_s
            try:
                async with asyncio.timeout(wait):
                    await self._moved.wait()
            except TimeoutError:
                if not self._busy:  # else the agent came back meanwhile
                    return

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        dialect = _SERVED.get(scope["path"]) if scope["method"] == "POST" else None
        try:
            self._admit(dict(scope["headers"]))
            if dialect is not None:
                await self._attended(dialect, scope, receive, send)
            elif (scope["method"], scope["path"]) == ("GET", "/v1/models"):
                names = list(dict.fromkeys(call.call.model for call in self._run.calls))
                await respond(send, 200, _json(), models_body(names, 0))
            else:
                raise _not_served(scope)
        except ProxyError as error:
            await _refuse(dialect or OPENAI_CHAT, error, send, [])
        except ClientGone:
            return

    def _admit(self, headers: Headers) -> None:
        """Raises `ProxyError(invalid_credential)`. Every key is compared, each in constant time."""
        key = credential(headers)
        digest = hash_key(key) if key is not None else ""
        found = [hmac.compare_digest(each, digest) for each in self._rules.keys]
        if not any(found):
            raise ProxyError(
                Kind.INVALID_CREDENTIAL,
                "This is a replay: send the key that `runs replay` printed, or a key of the recorded agent.",
                retryable=False,
            )

    async def _attended(self, dialect: Dialect, scope: Scope, receive: Receive, send: Send) -> None:
        """It doesn't end in the middle of a reply."""
        self._busy += 1
        try:
            await self._answer(dialect, scope, receive, send)
        finally:
            self._busy -= 1
            self._moved.set()

    async def _answer(self, dialect: Dialect, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, dict(scope["headers"]), self._rules.max_body)
        request = dialect.parse(body)
        match = self._matching.take(asked(dialect, request))
        divergence = self._log.answered(match)
        if divergence is not None:
            self._tell(divergence)
        headers = self._headers(match, divergence)
        try:
            self._stop_if_strict(divergence)
            recorded = self._found(match)
            reply = reply_to(recorded, dialect, request, retried=self._run.retried(recorded))
        except ProxyError as error:
            await _refuse(dialect, error, send, headers)
            return
        except ValueError:  # of what was recorded, where it can't be read after all
            await _refuse(dialect, failed_inside(), send, headers)
            return
        async with _Leaving(receive) as leaving:
            await _send(reply, headers, self._rules.speed, send, leaving)
        if leaving.left and match is not None:
            self._matching.unheard(match)

    def _found(self, match: Match | None) -> Recorded:
        if match is None:
            raise ProxyError(
                Kind.INVALID_REQUEST,
                f"The recorded run has no more calls: all {len(self._run.calls)} of run {self._run.run_id} "
                "were replayed.",
                status=409,
                retryable=False,
            )
        return self._run.calls[match.place]

    def _stop_if_strict(self, divergence: Divergence | None) -> None:
        if divergence is None or not self._rules.strict or not divergence.call:
            return
        self.end()
        first = divergence.differences[0].path if divergence.differences else ""
        raise ProxyError(
            Kind.INVALID_REQUEST,
            f"The request diverges from the recorded run at {divergence.place}: {divergence.why}"
            f"{first and f' ({first})'}. The replay is strict, and ends here.",
            status=409,
            retryable=False,
        )

    def _headers(self, match: Match | None, divergence: Divergence | None) -> HeaderList:
        headers: HeaderList = [
            (b"x-run-id", self._run.run_id.encode()),
            (b"x-replay", b"diverged" if divergence else b"same"),
        ]
        if match is not None:
            call = self._run.calls[match.place]
            headers += [(b"x-replay-call", b"%d" % call.number), (b"x-call-id", call.call.id.encode())]
        return headers


class _Leaving:
    """Notices that the agent leaves before its reply's end."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.left = False

    async def __aenter__(self) -> _Leaving:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()

    async def within(self, seconds: float) -> bool:
        """Waits so long; whether the agent left meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        self.left = self._gone.is_set()
        return self.left


async def _send(reply: Reply, headers: HeaderList, speed: float, send: Send, leaving: _Leaving) -> None:
    if not reply.streamed:
        if speed and await leaving.within(reply.total_s / speed):
            return
        await respond(send, 200, [*_json(), *headers], b"".join(reply.frames))
        return
    sort = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    frames = reply.frames if speed else (b"".join(reply.frames),)
    gap = max(0.0, reply.total_s - reply.first_s) / max(1, len(frames) - 1) / speed if speed else 0.0
    if speed and await leaving.within(reply.first_s / speed):
        return
    await send({"type": "http.response.start", "status": 200, "headers": [*sort, *headers]})
    for n, frame in enumerate(frames):
        if n and await leaving.within(gap):
            return
        await send({"type": "http.response.body", "body": frame, "more_body": True})
    if reply.breaks:
        raise Broken
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _refuse(dialect: Dialect, error: ProxyError, send: Send, headers: HeaderList) -> None:
    if not error.retryable:
        headers.append((b"x-should-retry", b"false"))
    await respond(send, error.status, [*_json(), *headers], dialect.error_body(error, "replay"))


def _json() -> HeaderList:
    return [(b"content-type", b"application/json")]


def _not_served(scope: Scope) -> ProxyError:
    return ProxyError(
        Kind.INVALID_REQUEST,
        f"{scope['method']} {str(scope['path'])[:200]} is not replayed. Replayed: "
        f"{', '.join(f'POST {path}' for path in _SERVED)}.",
        status=404,
        retryable=False,
    )
