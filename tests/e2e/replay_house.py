"""A proxy with recorded runs of three dialects, and replays of them on ports of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from llm_proxy.archive.calls import call_views
from llm_proxy.archive.listings import list_calls
from llm_proxy.identity.keyring import hash_key
from llm_proxy.replaying.recorded import Run, run_of
from llm_proxy.replaying.report import Divergence, Report
from llm_proxy.replaying.serve import Replay, Rules
from llm_proxy.replaying.server import listening, serve
from tests.e2e.dialect_agents import JUDGED
from tests.proxy import KEY, ProxyProcess, config

_READ = '{name: crm_read, arguments: {id: "7"}}'
_SEARCH = '{name: kb_search, arguments: {id: "8"}}'
_BAD = '{name: mail_send, arguments: {id: "9"}}'
SCRIPT = f"""
default:
  turns:
    - when: {{last_user_contains: <tools>, turn: 0}}
      reasoning: I look first.
      text: One moment.
      tool_calls: [{_READ}, {_SEARCH}]
    - {{when: {{last_user_contains: <tools>, turn: 1}}, reasoning: Another look., tool_calls: [{_READ}]}}
    - {{when: {{last_user_contains: <denied>, turn: 0}}, text: I mail it., tool_calls: [{_READ}, {_BAD}]}}
    - {{when: {{last_user_contains: <slow>}}, latency_s: 0.3, delta_s: 0.1, deltas: 4, text: one two three}}
    - {{when: {{last_user_contains: <fails>}}, status: 400, error: {{message: too odd, code: odd}}}}
    - {{when: {{last_user_contains: <busy>}}, status: 503, fail_times: 2}}
    - {{when: {{last_user_contains: <breaks>}}, text: one two three four five, cut_after: 3}}
    - {{when: {{last_user_contains: <key>}}, text: It is sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD.}}
    - {{text: All done.}}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "replayed", "version": 1},
    "on_deny": "replace",
    "tools": JUDGED,
}


def settings(origin: str, models: dict[str, Any]) -> dict[str, Any]:
    price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": 8000}
    return config(f"{origin}/v1", models=models, prices={"m": price})


@dataclass
class Served:
    """A replay that runs. Where an agent takes a proxy, it takes this."""

    origin: str
    told: list[Divergence] = field(default_factory=list[Divergence])
    reports: list[Report] = field(default_factory=list[Report])

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def report(self) -> Report:
        """Once it has ended."""
        return self.reports[0]


def recorded(proxy: ProxyProcess, run: str) -> Run:
    with proxy.engine.connect() as connection:
        ids = [row.id for row in list_calls(connection, limit=1000, run=run, oldest_first=True)]
        return run_of(run, "bot", call_views(connection, ids))


@asynccontextmanager
async def replayed(
    proxy: ProxyProcess, run: str, *, speed: float = 0, strict: bool = False, linger_s: float = 0
) -> AsyncGenerator[Served]:
    """A replay of the run, which ends with the block; then its report is there."""
    opened = listening("127.0.0.1", 0)
    served = Served(f"http://127.0.0.1:{opened.getsockname()[1]}")
    rules = Rules(keys=[hash_key(KEY)], speed=speed, strict=strict, linger_s=linger_s, max_body=1 << 20)
    replay, ready = Replay(recorded(proxy, run), rules, served.told.append), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve(replay, opened, ready.set))
        await ready.wait()
        try:
            yield served
        finally:
            replay.end()
            served.reports.append(await serving)
