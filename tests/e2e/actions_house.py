"""A proxy under a policy whose agents and tools ask for verdicts and report what they did."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.runs_house import ADMIN, House
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config

FRESH_KEY, WATCHED_KEY = "sk-fresh-0123456789abcdef", "sk-watched-0123456789abcdef"
ISSUER = "https://proxy.example"
SCRIPT = """
default:
  turns:
    - tool_calls: [{name: crm_read, arguments: {id: "7"}}, {name: note_write, arguments: {text: "hi"}}]
      usage: {input: 8, output: 12}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "actions", "version": 1},
    "on_deny": "error",
    "receipts": True,
    "tools": {
        "crm_read": {
            "effect": "read",
            "tier": "autonomous",
            "result": {"trust": "internal"},
            "args": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
        },
        "note_write": {"effect": "write", "tier": "autonomous"},
        "wipe": {"effect": "irreversible", "tier": "prohibited"},
        "refund": {"effect": "write", "tier": "human-approval"},
        "mail_send": {"effect": "write", "tier": "autonomous", "identity_args": ["to"]},
    },
    "rules": [
        {
            "id": "unnamed",
            "then": "deny",
            "when": 'tool.name == "mail_send" && !call.identity_from_user',
            "tell_model": "Ask the user who is meant",
        }
    ],
    "caps": {"run": {"writes": 3}},
}
BUDGETS = [
    {"id": "gate", "agent": "bot", "window": "run", "tool_calls": 6, "writes": 4, "requests": 5},
    {"id": "fresh", "agent": "fresh", "window": "lifetime", "tool_calls": 0},
]


class Actions(House):
    """A house whose agents act without a model."""

    async def check(self, tool: str, arguments: Any, run: str = "", key: str = KEY, **more: Any) -> Any:
        """The answer of a check that succeeded."""
        named = {name: more.pop(name) for name in tuple(more) if name.startswith("x_")}
        if run:
            named["x_run_id"] = run
        body = {"tool": tool, "arguments": arguments, **more}
        answer = await self.send("POST", "/v1/actions/check", body, key, **named)
        assert answer.status == 200, answer
        return answer.body

    async def effect(self, run: str, key: str = KEY, **wish: Any) -> Any:
        return await self.send("POST", f"/v1/runs/{run}/effects", wish, key)


@asynccontextmanager
async def actions_house(
    folder: Path, *, workers: int = 2, policy: dict[str, Any] | None = POLICY, **more: Any
) -> AsyncGenerator[Actions]:
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(
            upstream.base_url,
            server={"drain_s": 1, "admin_token": ADMIN, "public_url": ISSUER},
            agents={
                "bot": {"keys": [KEY], "models": ["*"]},
                "other": {"keys": [OTHER_KEY], "models": ["*"], "tools": ["crm_*"]},
                "fresh": {"keys": [FRESH_KEY], "require_run": True},
                "watched": {"keys": [WATCHED_KEY]},
            },
            budgets=BUDGETS,
            **more,
        )
        async with (
            ProxyProcess(folder, settings, policy=policy, workers=workers) as proxy,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        ):
            yield Actions(proxy, upstream, http)
