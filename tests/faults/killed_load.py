"""Agents of three dialects that never stop calling a proxy which is killed under them, and what each got."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from llm_proxy.archive.calls import call_views
from llm_proxy.records.view import CallView, Status
from llm_proxy.scripted.server import Scripted
from tests.proxy import ProxyProcess, config, headers, target

SPEEDS = 6
SCRIPT = "default:\n  turns:\n" + "".join(
    f"    - {{when: {{model: {kind}-{n}}}, text: one two three four five six,"
    f" usage: {{input: 40, output: 9}}, delta_s: {0.006 * n * n}, latency_s: {0.02 * n}}}\n"
    for kind in ("chat", "messages")
    for n in range(SPEEDS)
)
ENDS = {"chat/completions": b"[DONE]", "messages": b"message_stop", "responses": b"response.completed"}
"""What only the last event of a stream that came whole says."""


def settings(upstream: Scripted, store: str, **more: Any) -> dict[str, Any]:
    """Models of each vendor's kind, so that some calls pass as they are and some are translated."""
    url = upstream.base_url
    models = {
        f"{kind}-{n}": {
            "targets": [target(f"{kind}-{n}", url, f"{kind}-{n}") | {"provider": provider}],
            "retries": 0,
        }
        for kind, provider in (("chat", "openai"), ("messages", "anthropic"))
        for n in range(SPEEDS)
    }
    price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    return config(
        url,
        store=store,
        models=models,
        prices=dict.fromkeys(models, price),
        budgets=[{"id": "day", "window": "day", "usd": 5_000, "requests": 10**7}],
        **more,
    )


def _body(path: str, model: str, text: str, stream: bool) -> bytes:
    told: dict[str, Any] = {"model": model, "stream": stream}
    if path == "responses":
        return json.dumps(told | {"input": text}).encode()
    most = {"max_tokens": 64} if path == "messages" else {}
    return json.dumps(told | most | {"messages": [{"role": "user", "content": text}]}).encode()


@dataclass(frozen=True)
class Whole:
    """A reply of which a client saw the end, and what it had asked."""

    call_id: str
    body: bytes
    got: bytes


Odd = tuple[int, str, str | None]
"""Status, `code` and `retry-after`."""


@dataclass
class Crowd:
    """Clients that call again and again, whatever becomes of their calls."""

    proxy: ProxyProcess
    chance: random.Random
    whole: list[Whole] = field(default_factory=list[Whole])
    cut: int = 0
    """Calls that ended before their reply did."""
    odd: dict[Odd, int] = field(default_factory=dict[Odd, int])
    """How many answers were other than 200, of which kind."""
    refused_at: float = 0.0
    """When the newest of them came, by the clock of the event loop."""
    slowest: float = 0.0
    """How many seconds the longest of all answers took."""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    @asynccontextmanager
    async def calling(self, clients: int) -> AsyncGenerator[None]:
        """So many at once, until the block ends; their last calls are let end."""
        over = asyncio.Event()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            tasks = [asyncio.create_task(self._client(http, over)) for _ in range(clients)]
            try:
                yield
            finally:
                over.set()
                await asyncio.gather(*tasks)

    async def _client(self, http: aiohttp.ClientSession, over: asyncio.Event) -> None:
        while not over.is_set():
            try:
                await self._call(http)
            except (aiohttp.ClientError, TimeoutError):
                self.cut += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), 0.05)

    async def _call(self, http: aiohttp.ClientSession) -> None:
        number = next(self._numbers)
        path, stream = self.chance.choice(list(ENDS)), number % 3 > 0
        model = f"{self.chance.choice(['chat', 'messages'])}-{self.chance.randrange(SPEEDS)}"
        body = _body(path, model, f"prompt {number}", stream)
        sent = headers(x_run_id=f"run-{number % 50}")
        url = f"{self.proxy.base_url}/{path}"
        timeout = aiohttp.ClientTimeout(total=90)
        clock = asyncio.get_running_loop().time
        began = clock()
        async with http.post(url, data=body, headers=sent, timeout=timeout) as reply:
            got = await reply.read()
            self.slowest = max(self.slowest, clock() - began)
            if reply.status != 200:
                code = json.loads(got)["error"].get("code", "")
                odd = (reply.status, code, reply.headers.get("retry-after"))
                self.odd[odd] = self.odd.get(odd, 0) + 1
                self.refused_at = clock()
                await asyncio.sleep(0.05)
                return
            if stream and ENDS[path] not in got:
                self.cut += 1  # it ended in its dialect's error
                return
            self.whole.append(Whole(reply.headers["x-call-id"], body, got))


def recorded(proxy: ProxyProcess, whole: list[Whole]) -> dict[str, CallView]:
    """The records of these replies, by the call's id."""
    found: dict[str, CallView] = {}
    with proxy.engine.connect() as connection:
        for start in range(0, len(whole), 500):
            ids = [each.call_id for each in whole[start : start + 500]]
            found |= {view.id: view for view in call_views(connection, ids)}
    return found


def differences(views: dict[str, CallView], whole: list[Whole]) -> list[str]:
    """What the records say otherwise than the clients, who saw these replies to their end."""
    found: list[str] = []
    for each in whole:
        view = views.get(each.call_id)
        if view is None:
            found.append(f"{each.call_id}: no record")
            continue
        reply = view.emitted if view.released is None else view.released
        if view.status is not Status.OK:
            found.append(f"{each.call_id}: {view.status}")
        if view.request != each.body:
            found.append(f"{each.call_id}: another prompt is on record")
        if reply != each.got:
            found.append(f"{each.call_id}: another reply is on record")
    return found
