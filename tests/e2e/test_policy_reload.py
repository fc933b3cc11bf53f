"""A changed policy file comes into force between calls, or is refused and the one before stays."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import select

from llm_proxy.records import bodies
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.tables import records
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import ProxyProcess, ask, config, headers, until
from tests.webhook_receiver import SECRET, Receiver, receiving

pytestmark = pytest.mark.asyncio(loop_scope="module")

BROKEN = "the policy file can't be used; the one before stays in force"
WORKERS = 2
SCRIPT = """
models:
  m:
    turns:
      - when: {last_user_contains: slowly}
        text: one two three four
        delta_s: 0.4
        tool_calls: [{name: look, arguments: {}}]
      - {tool_calls: [{name: look, arguments: {}}]}
"""


def policy_of(tier: str, **more: Any) -> dict[str, Any]:
    tools = {
        "look": {"effect": "read", "tier": tier, "result": {"trust": "internal"}, "args": {"type": "object"}}
    }
    return {"policy": {"id": "reloaded", "version": tier}, "on_deny": "replace", "tools": tools} | more


@dataclass
class House:
    proxy: ProxyProcess
    hook: Receiver
    file: Path

    def write(self, text: str) -> None:
        """As most editors do: a new file takes the old one's place."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        os.replace(new, self.file)

    def loaded(self) -> list[bodies.PolicyLoaded]:
        """What is on record, oldest first within each writer."""
        query = select(records.c.body).where(records.c.kind == RecordKind.POLICY_LOADED.value)
        with self.proxy.engine.connect() as connection:
            found = connection.execute(query.order_by(records.c.at_us)).scalars().all()
        return [msgspec.json.decode(body, type=bodies.PolicyLoaded) for body in found]

    async def decisions(self, count: int = 6) -> set[str]:
        """Of so many calls, which the workers share."""
        found: set[str] = set()
        for _ in range(count):
            async with (
                aiohttp.ClientSession() as http,
                http.post(self.proxy.url, json=ask("go"), headers=headers()) as reply,
            ):
                assert reply.status == 200
                await reply.read()
                found.add(self.proxy.view(reply.headers["x-call-id"]).decisions[0].decision)
        return found

    async def fetch(self, path: str) -> str:
        async with aiohttp.ClientSession() as http, http.get(self.proxy.origin + path) as reply:
            assert reply.status == 200
            return await reply.text()

    async def in_force(self, version: str) -> None:
        def there() -> bool:
            newest = [body for body in self.loaded() if body.version == version]
            return len(newest) >= WORKERS

        await until(there, f"both workers have loaded version {version}")
        await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("reload")
    async with running(parse_script(SCRIPT)) as upstream, receiving() as hook:
        settings = config(
            upstream.base_url,
            webhooks=[{"id": "ops", "url": hook.url, "secret": SECRET, "events": ["policy.changed"]}],
        )
        async with ProxyProcess(
            folder, settings, policy=policy_of("autonomous"), workers=WORKERS, may_say=frozenset({BROKEN})
        ) as proxy:
            yield House(proxy, hook, folder / "policy.yaml")


async def test_every_chain_begins_with_the_policy_in_force(house: House) -> None:
    await until(lambda: len(house.loaded()) >= WORKERS, "the other worker is up too")
    assert [(body.version, body.before, body.in_force) for body in house.loaded()] == [
        ("autonomous", "", True)
    ] * WORKERS
    assert house.hook.tries == []
    assert await house.decisions() == {"allow"}


async def test_a_changed_file_judges_the_next_call_and_not_one_that_has_begun(house: House) -> None:
    async with aiohttp.ClientSession() as http:
        stream = ask("slowly please", stream=True)
        async with http.post(house.proxy.url, json=stream, headers=headers()) as begun:
            await begun.content.readany()
            house.write(json.dumps(policy_of("prohibited")))
            await house.in_force("prohibited")
            assert await house.decisions() == {"deny"}
            assert "look" in (await begun.text())
    old, new = house.loaded()[0], house.loaded()[-1]
    view = house.proxy.view(begun.headers["x-call-id"])
    assert (view.decisions[0].decision, view.decisions[0].policy) == ("allow", old.sha256)
    assert (new.before, new.file, new.mode) == (old.sha256, "policy.yaml", "enforce")
    await until(lambda: len(house.hook.taken) >= WORKERS, "every worker tells the webhook")
    assert {got.body["data"]["sha256"] for got in house.hook.taken} == {new.sha256}
    metrics = await house.fetch("/metrics")
    assert f'sha256="{new.sha256}"' in metrics


async def test_a_file_that_cannot_be_used_leaves_the_old_one_in_force(house: House) -> None:
    good, known = house.file.read_text(), len(house.loaded())
    house.write("policy: {id: x,\n  version: 1")
    await until(lambda: len(house.loaded()) >= known + WORKERS, "both workers refuse it")
    refused = house.loaded()[-1]
    assert (refused.in_force, refused.before) == (False, hashlib.sha256(good.encode()).hexdigest())
    assert "policy.yaml:2:" in refused.error
    assert await house.decisions() == {"deny"}
    ready = json.loads(await house.fetch("/health/ready"))
    assert (ready["status"], len(ready["warnings"])) == ("ready", 1)
    assert str(house.file) not in ready["warnings"][0], "anybody may ask"
    metrics = await house.fetch("/metrics")
    assert re.search(r"^llm_proxy_policy_reload_failures_total{.*} 1.0$", metrics, re.MULTILINE)


async def test_a_file_written_in_steps_is_loaded_when_it_is_whole(house: House) -> None:
    text, known = json.dumps(policy_of("autonomous", caps={"run": {"calls": 40}})), len(house.loaded())
    with house.file.open("w") as file:
        for start in range(0, len(text), len(text) // 5):
            file.write(text[start : start + len(text) // 5])
            file.flush()
            await asyncio.sleep(0.2)
    await until(lambda: len(house.loaded()) >= known + WORKERS, "both workers have loaded it")
    assert [body.in_force for body in house.loaded()[known:]] == [True] * WORKERS
    assert await house.decisions() == {"allow"}


async def test_a_verdict_is_repeated_under_its_own_policy_alone(house: House) -> None:
    async def check() -> tuple[str, bool]:
        body = {"tool": "look", "arguments": {}, "tool_call_id": "same"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                f"{house.proxy.origin}/v1/actions/check", json=body, headers=headers(x_run_id="acts")
            ) as reply,
        ):
            answer = await reply.json()
            return answer["decision"], answer.get("repeated", False)

    async def under(version: str, tier: str, **more: Any) -> list[tuple[str, bool]]:
        policy = policy_of(tier)
        house.write(json.dumps(policy | {"policy": {"id": "reloaded", "version": version, **more}}))
        await house.in_force(version)
        return [await check(), await check()]

    assert await under("a", "autonomous") == [("allow", False), ("allow", True)]
    assert await under("b", "prohibited") == [("deny", False), ("deny", True)]
    assert await under("c", "prohibited", mode="shadow") == [("allow", False), ("allow", True)]
    assert await under("d", "prohibited") == [("deny", False), ("deny", True)]
