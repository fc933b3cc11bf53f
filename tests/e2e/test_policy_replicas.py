"""Two proxies on one PostgreSQL share what the policy counts: a grant is used once, a day's cap is one."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, headers

pytest_plugins = ["tests.postgres"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

DANA = "dana-token-0123456789"
RUNS, AT_ONCE = 12, 3
CAP, CROWD = 10, 60
SCRIPT = """
default:
  turns:
    - {when: {last_user_contains: <refund>}, tool_calls: [{name: refund, arguments: {id: "9"}}]}
    - {when: {last_user_contains: <draft>}, tool_calls: [{name: mail_draft, arguments: {id: 1}}]}
    - {text: Done.}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "replicas", "version": 1},
    "on_deny": "replace",
    "tools": {
        "refund": {"effect": "write", "tier": "human-approval"},
        "mail_draft": {"effect": "write", "tier": "autonomous"},
    },
    "caps": {"sums": [{"id": "drafts", "tool": "mail_draft", "field": "id", "per": "agent-day", "max": CAP}]},
    "approvals": {"default": {"approvers": ["group:leads"], "hold_s": 0}},
}


@dataclass(frozen=True)
class House:
    proxies: tuple[ProxyProcess, ProxyProcess]
    http: aiohttp.ClientSession

    async def propose(self, n: int, text: str, run: str, key: str = KEY) -> str:
        """The name of the released call, or nothing, of a whole reply of proxy `n`."""
        body, told = ask(text, model="openai_chat"), headers(key, x_run_id=run)
        async with self.http.post(self.proxies[n % 2].url, json=body, headers=told) as reply:
            answer = await reply.json()
            assert reply.status == 200, answer
        calls = answer["choices"][0]["message"].get("tool_calls") or []
        return "".join(call["function"]["name"] for call in calls)

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        told = {"authorization": f"Bearer {DANA}"}
        data = None if body is None else json.dumps(body)
        at = f"{self.proxies[0].origin}/admin{path}"
        async with self.http.request(method, at, headers=told, data=data) as reply:
            answer = await reply.json()
            assert reply.status == 200, answer
            return answer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, shared_postgres_url: str) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running(parse_script(SCRIPT)))
        target = {"id": "m", "provider": "openai", "model": "m", "base_url": upstream.base_url}
        settings = config(
            upstream.base_url,
            store=shared_postgres_url,
            models={"openai_chat": {"targets": [target], "retries": 0}},
            agents={
                "bot": {"keys": [KEY], "models": ["*"]},
                "drafter": {"keys": [OTHER_KEY], "models": ["*"]},
            },
            operators=[{"id": "dana@example.com", "roles": ["approver"], "groups": ["leads"], "token": DANA}],
        )
        started: list[ProxyProcess] = []
        for name in ("a", "b"):
            folder = tmp_path_factory.mktemp(name)
            started.append(await stack.enter_async_context(ProxyProcess(folder, settings, policy=POLICY)))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield House((started[0], started[1]), http)


async def test_a_grant_lets_one_of_many_through_whichever_proxy_they_meet(house: House) -> None:
    runs = [f"granted-{n}" for n in range(RUNS)]
    assert set(await asyncio.gather(*[house.propose(n, "<refund>", run) for n, run in enumerate(runs)])) == {
        ""
    }
    for run in runs:
        [waiting] = await house.admin("GET", f"/approvals?run={run}")
        await house.admin("POST", f"/approvals/{waiting['id']}/approve", {"reason": "seen"})
    orders = [(n, run) for _ in range(AT_ONCE) for n in range(2) for run in runs]
    found = await asyncio.gather(*[house.propose(n, "<refund>", run) for n, run in orders])
    released = Counter(run for (_, run), name in zip(orders, found, strict=True) if name == "refund")
    assert released == dict.fromkeys(runs, 1)


async def test_a_days_sum_is_one_for_both_proxies(house: House) -> None:
    proposals = [house.propose(n, "<draft>", f"draft-{n}", OTHER_KEY) for n in range(CROWD)]
    found = Counter(await asyncio.gather(*proposals))
    assert found == {"mail_draft": CAP, "": CROWD - CAP}
