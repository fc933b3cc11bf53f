"""A proxy with something on every page of its console, and a model that says what a test tells it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.approvals_house import operators, token_of
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, headers, target, until
from tests.raw_upstream import Answer, raw_upstream

ADMIN = token_of("admin")
SCRIPT = """
default:
  turns:
    - {when: {tool_answered: crm_read}, text: "Your order 4711 was sent on Monday.", deltas: 3}
    - {when: {last_user_contains: order}, text: Let me look.,
       reasoning: "The order stands in the CRM: I look it up before I answer.",
       tool_calls: [{name: crm_read, arguments: {order: "4711"}}]}
    - {when: {last_user_contains: newsletter}, reasoning: "They want all customers to hear of it.",
       text: I write to them.,
       tool_calls: [{name: mail_send, arguments: {to: everyone@example.com, text: Sale!}}]}
    - {when: {last_user_contains: refund}, text: I ask for it.,
       tool_calls: [{name: refund, arguments: {order: "4711", amount: 120.5}}]}
    - {when: {last_user_contains: payout}, tool_calls: [{name: payout, arguments: {to: DE89, amount: 9000}}]}
    - {when: {last_user_contains: novel}, text: It was a dark and stormy night., stall_after: 6}
    - {when: {last_user_contains: broken}, status: 500}
    - {text: Done.}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "support-desk", "version": 3, "owner": "security@example.com"},
    "on_deny": "replace",
    "tools": {
        "crm_read": {"effect": "read", "tier": "autonomous", "owner": "sales"},
        "refund": {"owner": "finance", "risk": "high", "effect": "write", "tier": "human-approval"},
        "payout": {"effect": "irreversible", "tier": "human-approval", "approval": "two", "risk": "high"},
        "mail_send": {"effect": "write", "tier": "prohibited"},
    },
    "approvals": {
        "default": {"approvers": ["group:leads"], "expires_s": 900, "hold_s": 300},
        "two": {"approvers": ["group:leads"], "quorum": 2, "expires_s": 900, "hold_s": 300},
    },
}
ALLOWING = """policy: {id: support-desk, version: 4}
on_deny: replace
tools:
  crm_read: {effect: read, tier: autonomous}
  mail_send: {effect: write, tier: autonomous}
"""
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("crm_read", "refund", "payout", "mail_send")
]
PAGES = {
    "overview": "/console",
    "agents": "/console/agents",
    "agent": "/console/agents/bot",
    "runs": "/console/runs",
    "run": "/console/runs/ticket-4711?agent=bot",
    "run-approved": "/console/runs/ticket-4710?agent=bot",
    "search": "/console/search?q=order",
    "approvals": "/console/approvals",
    "spend": "/console/spend?by=day,agent",
    "spend beside the time before": "/console/spend?by=agent,model&compare=1",
    "policy": "/console/policy",
    "simulate": "/console/policy/simulate",
    "routes": "/console/routes?model=m",
    "audit": "/console/audit",
}


@dataclass
class Stage:
    proxy: ProxyProcess
    folder: Path
    http: aiohttp.ClientSession
    raw: list[Answer]
    """What the model `raw` answers next, once."""

    async def say(
        self, text: str, run: str, *, key: str = KEY, user: str = "", told: Any = (), **more: str
    ) -> bytes:
        """A streamed call in `run`; everything that the agent receives. `told` are further messages."""
        body = ask(text, tools=TOOLS, stream=True)
        body["messages"] += told
        sent = headers(key, x_run_id=run, x_user_id=user, **more)
        async with self.http.post(self.proxy.url, data=json.dumps(body), headers=sent) as reply:
            return await reply.read()

    def begin(self, text: str, run: str, *, key: str = KEY, user: str = "") -> asyncio.Task[bytes]:
        """The same, under way."""
        return asyncio.create_task(self.say(text, run, key=key, user=user))

    async def whole(self, text: str, run: str, **more: str) -> bytes:
        """A call of the model `raw`, not streamed, in which everybody says `text`."""
        body = ask(text, model="raw", tools=TOOLS)
        asked = {"id": "c0", "type": "function", "function": {"name": "crm_read", "arguments": "{}"}}
        body["messages"] += [
            {"role": "assistant", "content": text, "tool_calls": [asked]},
            {"role": "tool", "tool_call_id": "c0", "content": text},
        ]
        sent = headers(KEY, x_run_id=run, **more)
        async with self.http.post(
            self.proxy.url, data=BytesIO(json.dumps(body).encode()), headers=sent
        ) as reply:
            received = await reply.read()
            assert reply.status == 200, received[:500]
            return received

    async def send(self, path: str, token: str, **body: str) -> None:
        told = {"authorization": f"Bearer {token}"}
        async with self.http.post(self.proxy.origin + path, json=body, headers=told) as reply:
            assert reply.status < 300, await reply.text()

    async def waiting(self, run: str) -> str:
        """The approval that waits in `run`."""
        return (await self._waiting(run))["id"]

    async def expires_s(self, run: str) -> float:
        """When (Unix s) the approval that waits in `run` expires."""
        return (await self._waiting(run))["expires_us"] / 1e6

    async def _waiting(self, run: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        async def there() -> bool:
            told = {"authorization": f"Bearer {ADMIN}"}
            url = f"{self.proxy.origin}/admin/approvals?run={run}"
            async with self.http.get(url, headers=told) as reply:
                found[:] = await reply.json()
            return bool(found)

        await until(there, f"an approval waits in {run}")
        return found[0]


@asynccontextmanager
async def staged(folder: Path) -> AsyncGenerator[Stage]:
    """The proxy, with nothing recorded yet."""
    raw: list[Answer] = []
    async with running(parse_script(SCRIPT)) as scripted, raw_upstream(lambda _: raw.pop()) as upstream:
        models = {
            "m": {"targets": [target("first", scripted.base_url)], "retries": 0},
            "raw": {"targets": [target("raw", upstream.base_url)], "retries": 0},
        }
        settings = config(
            scripted.base_url,
            server={"admin_token": ADMIN, "drain_s": 1},
            models=models,
            prices={
                "m": {"input_cost_per_token": 1e-4, "output_cost_per_token": 2e-4},
                "raw": {"input_cost_per_token": 1e-7, "output_cost_per_token": 2e-7},
            },
            budgets=[
                {"id": "day", "agent": "*", "window": "day", "usd": 50, "requests": 1_000},
                {"id": "all", "window": "month", "usd": 500},
            ],
            agents={
                "bot": {
                    "keys": [KEY],
                    "models": ["*"],
                    "owner": "support@example.com",
                    "team": "support",
                    "role": "support",
                },
                "other": {"keys": [OTHER_KEY], "models": ["*"]},
            },
            operators=operators(),
        )
        async with (
            ProxyProcess(folder, settings, policy=POLICY) as proxy,
            aiohttp.ClientSession() as http,
        ):
            yield Stage(proxy, folder, http, raw)


async def played(stage: Stage) -> asyncio.Task[bytes]:
    """Gives every page something to show; the call that then waits for a person."""
    carl = "carl@example.com"
    answer = [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "crm_read", "arguments": '{"order":"4711"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"order": "4711", "sent": "Monday"}'},
    ]
    await stage.say("Where is my order 4711?", "ticket-4711", user=carl)
    await stage.say("Where is my order 4711?", "ticket-4711", told=answer, user=carl)
    await stage.say("Tell everybody in a newsletter.", "ticket-4711", user=carl)
    await stage.say("Sum it up.", "ticket-4711-sum", x_parent_run_id="ticket-4711", user=carl)
    await stage.say("broken", "ticket-4712", x_tags="project=x,night")
    for number in range(3):
        await stage.say(f"hello {number}", f"nightly-{number}", key=OTHER_KEY)
    await _approved(stage, "ticket-4710", carl)
    held = stage.begin("A refund, please.", "ticket-4713", user=carl)
    await stage.waiting("ticket-4713")
    return held


async def _approved(stage: Stage, run: str, user: str) -> None:
    """A run in which a person lets a call go; it reports what came of that, and begins others."""
    asked = stage.begin("A refund, please.", run, user=user)
    await stage.send(
        f"/admin/approvals/{await stage.waiting(run)}/approve", token_of("dana"), reason="It's due."
    )
    assert b"120.5" in await asked
    await stage.send(f"/v1/runs/{run}/effects", KEY, kind="refund", url="https://pay.example/refunds/4710")
    await stage.say("Write it down.", f"{run}-note", x_parent_run_id=run, user=user)
    await stage.say("And file it.", f"{run}-file", x_parent_run_id=f"{run}-note", user=user)
    await stage.say("Done?", run, user=user)
