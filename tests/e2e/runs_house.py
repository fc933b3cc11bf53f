"""A proxy whose agents open runs under envelopes, and what they ask of it: shared by the tests of runs."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, headers

ADMIN = "an-admin-token-0123456789"
STRICT_KEY = "sk-strict-0123456789abcdef"
CAP = 12
TOKENS, MICRO_USD = 8 + CAP, 8 + 2 * CAP
"""Of one call: `ask("hi")` is counted as 8 tokens, and the reply uses its whole cap."""
TEXT = "one two three four five six seven eight"
SCRIPT = f"""
models:
  m: {{turns: [{{text: Hello there, usage: {{input: 8, output: {CAP}}}, latency_s: 0.05}}]}}
  m-slow: {{turns: [{{text: {TEXT}, stall_after: 4}}]}}
  m-tools:
    turns:
      - tool_calls: [{{name: crm_read, arguments: {{id: "7"}}}}, {{name: mail_send, arguments: {{to: "x"}}}}]
        usage: {{input: 8, output: {CAP}}}
default: {{turns: [{{text: Hello, usage: {{input: 8, output: {CAP}}}}}]}}
"""
BUDGETS = [
    {"id": "bot-day", "agent": "bot", "window": "day", "usd": 50, "requests": 5_000},
    {"id": "per-run", "agent": "*", "window": "run", "requests": 400, "tool_calls": 40},
]


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def error(self) -> dict[str, Any]:
        return self.body["error"]

    @property
    def said(self) -> str:
        return self.error["message"]


@dataclass
class House:
    proxy: ProxyProcess
    upstream: Scripted
    http: aiohttp.ClientSession

    async def send(
        self, method: str, path: str, body: Any = None, key: str | None = KEY, **named: str
    ) -> Answer:
        """Over a connection of its own, so that every worker serves some. `body` may be bytes."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        url, sent = self.proxy.origin + path, headers(key, connection="close", **named)
        async with self.http.request(method, url, data=data, headers=sent) as reply:
            return Answer(reply.status, reply.headers, json.loads(await reply.read()))

    async def open(self, key: str = KEY, token: str = "", **wish: Any) -> Answer:
        more = {"x_run_token": token} if token else {}
        return await self.send("POST", "/v1/runs", {"purpose": "test", **wish}, key, **more)

    async def opened(self, key: str = KEY, token: str = "", **wish: Any) -> dict[str, Any]:
        answer = await self.open(key, token, **wish)
        assert answer.status == 201, answer
        return answer.body

    async def run(self, run_id: str, key: str = KEY) -> dict[str, Any]:
        answer = await self.send("GET", f"/v1/runs/{run_id}", key=key)
        assert answer.status == 200, answer
        return answer.body

    async def call(self, run: str = "", key: str = KEY, **named: Any) -> Answer:
        """A call that may use `CAP` tokens of reply, in a run; `body` holds more of its request."""
        body = ask("hi", max_completion_tokens=CAP) | named.pop("body", {})
        if run:
            named["x_run_id"] = run
        return await self.send("POST", "/v1/chat/completions", body, key, **named)

    async def admin(self, method: str, path: str, body: Any = None) -> Answer:
        return await self.send(method, f"/admin{path}", body, ADMIN)


@asynccontextmanager
async def runs_house(folder: Path, *, workers: int = 1, **more: Any) -> AsyncGenerator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        target = config(upstream.base_url)["models"]["m"]["targets"][0]
        models = {
            name: {"targets": [{**target, "id": f"up-{name}", "model": name}], "retries": 0}
            for name in ("m", "m-slow", "m-tools")
        }
        price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
        settings = config(
            upstream.base_url,
            server={"drain_s": 1, "admin_token": ADMIN},
            models=models,
            prices=dict.fromkeys(models, price),
            agents={
                "bot": {"team": "crew", "keys": [KEY], "models": ["*"]},
                "other": {"keys": [OTHER_KEY], "models": ["*"], "tools": ["crm_*"]},
                "strict": {"keys": [STRICT_KEY], "models": ["*"], "require_run": True},
            },
            budgets=BUDGETS,
            **more,
        )
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            ProxyProcess(folder, settings, workers=workers) as proxy,
            aiohttp.ClientSession(connector=connector) as http,
        ):
            yield House(proxy, upstream, http)
