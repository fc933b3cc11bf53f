"""Proxies of two workers whose models come to no end, operators who stop agents, streams that tell when."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from llm_proxy.records.view import CallView, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.e2e.dialect_agents import UPSTREAMS, speaking
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config, headers, target, until

ADMIN = "an-admin-token-0123456789"
DANA = "an-operators-token-0123456"
SCRIPT = """
models:
  m: {turns: [{text: "one two three four five six seven eight", stall_after: 6}]}
  drains: {turns: [{text: "one two three four five six seven eight", stall_after: 6}]}
  silent: {turns: [{text: late, latency_s: 60}]}
  good: {turns: [{text: Hello, usage: {input: 40, output: 9}}]}
  tools:
    turns: [{tool_calls: [{name: crm_read, arguments: {id: "7"}}, {name: mail_send, arguments: {id: "8"}}]}]
"""
_ASK = [{"role": "user", "content": "hi"}]
DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat/completions", {"model": "m-openai_chat", "messages": _ASK}),
    "responses": ("/responses", {"model": "m-openai_responses", "input": "hi"}),
    "messages": ("/messages", {"model": "m-anthropic_messages", "messages": _ASK, "max_tokens": 50}),
    "translated": ("/messages", {"model": "m-openai_chat", "messages": _ASK, "max_tokens": 50}),
}
"""A path and a request for a reply that stalls."""


@dataclass
class House:
    proxy: ProxyProcess
    upstream: Scripted
    http: aiohttp.ClientSession

    async def admin(self, path: str, body: object = None, token: str = DANA) -> tuple[int, Any]:
        """A POST below `/admin`."""
        data = b"" if body is None else json.dumps(body).encode()
        at = f"{self.proxy.origin}/admin{path}"
        async with self.http.post(at, data=data, headers={"authorization": f"Bearer {token}"}) as reply:
            return reply.status, await reply.json()

    async def key(self, agent: str = "bot", **more: Any) -> dict[str, Any]:
        """An issued key of the agent."""
        status, issued = await self.admin("/keys", {"agent_id": agent, **more})
        assert status == 201, issued
        return issued

    async def call(
        self, key: str = KEY, model: str = "good", **more: str
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """A whole reply over chat: status, body and headers."""
        body = json.dumps({"model": model, "messages": _ASK}).encode()
        async with self.http.post(self.proxy.url, data=body, headers=headers(key, **more)) as reply:
            return reply.status, await reply.json(), dict(reply.headers)

    async def streams(
        self, count: int, key: str = KEY, run: str = "r", *, spread: bool = False
    ) -> list[Stream]:
        """That many streams, in all dialects, which all have begun; with `spread` both workers serve some."""
        names = list(DIALECTS)
        found: list[Stream] = []
        while len(found) < count or (spread and self.workers(found) < 2):
            assert len(found) < 5 * count, "one worker took them all"
            stream = Stream(self, names[len(found) % len(names)], key, run)
            stream.task = asyncio.create_task(stream.read())
            found.append(stream)
            await asyncio.sleep(0.02)  # a worker takes all that waits at its door at once
            if len(found) >= count:
                await until(lambda: all(stream.got for stream in found), "every stream has begun")
        return found

    def workers(self, streams: list[Stream]) -> int:
        return len({self.proxy.writer_of(stream.call_id) for stream in streams})


@dataclass
class Stream:
    """One streamed call: what it got, and when it ended (`time.monotonic`)."""

    house: House
    dialect: str
    key: str
    run: str
    got: bytearray = field(default_factory=bytearray)
    call_id: str = ""
    ended: float = 0.0
    task: asyncio.Task[None] | None = None

    async def read(self) -> None:
        path, body = DIALECTS[self.dialect]
        data = json.dumps(body | {"stream": True}).encode()
        named = headers(self.key, **({"x_run_id": self.run} if self.run else {}))
        # Each over a connection of its own, so that all workers serve some.
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.post(self.house.proxy.base_url + path, data=data, headers=named) as reply,
        ):
            assert reply.status == 200, await reply.text()
            self.call_id = reply.headers["x-call-id"]
            async for chunk in reply.content.iter_any():
                self.got += chunk
        self.ended = time.monotonic()

    @property
    def error(self) -> dict[str, Any]:
        """The error object of the last event, which is the dialect's own error event."""
        event = bytes(self.got).rstrip().split(b"\n\n")[-1]
        name = b"event: error\n" in event
        data = json.loads(event.partition(b"data: ")[2])
        kind = {"chat": None, "responses": "error", "messages": "error", "translated": "error"}[self.dialect]
        assert (data.get("type"), name) == (kind, kind is not None), event
        return data["error"]

    @property
    def view(self) -> CallView:
        return self.house.proxy.view(self.call_id)


@asynccontextmanager
async def standing_house(folder: Path, store: str | None, **more: Any) -> AsyncGenerator[House]:
    parsed = parse_script(SCRIPT)
    async with running(parsed) as upstream, aiohttp.ClientSession() as http:
        origin = upstream.base_url.removesuffix("/v1")
        models: dict[str, Any] = {
            name: {"targets": [target(name, upstream.base_url, name)], "retries": 0} for name in parsed.models
        }
        models |= {
            f"m-{dialect}": {"targets": [speaking(dialect, f"m-{dialect}", origin)]} for dialect in UPSTREAMS
        }
        models["drains"]["on_leave"] = "drain"
        price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": 100}
        told = config(
            upstream.base_url,
            server={"admin_token": ADMIN, "drain_s": 1},
            operators=[{"id": "dana@example.com", "roles": ["admin"], "token": DANA}],
            models=models,
            prices=dict.fromkeys(["m", *parsed.models], price),
            budgets=[{"id": "day", "window": "day", "usd": 5, "requests": 9000, "tokens": 10**7}],
            **{
                "agents": {
                    "bot": {"team": "crew", "keys": [KEY], "models": ["*"]},
                    "other": {"keys": [OTHER_KEY], "models": ["*"]},
                }
            }
            | more
            | ({"store": store} if store else {}),
        )
        async with ProxyProcess(folder, told, workers=2) as proxy:
            yield House(proxy, upstream, http)


def settled_as_cut(house: House, stream: Stream, kind: str) -> None:
    """The record says why it ended; what flowed was charged, within what was held."""
    view = stream.view
    assert (view.status, view.problem.kind if view.problem else "") == (Status.CUT, kind)
    assert view.usage is not None
    assert view.cost_label == "partial"
    assert 0 < view.cost_micro_usd <= view.held["micro_usd"]
