"""Budgets tell webhooks what happens to them, once, from the transaction in which it happens."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio
from sqlalchemy import select

from llm_proxy.records import bodies
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.tables import records
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import KEY, ProxyProcess, ask, config, until
from tests.webhook_receiver import HANG, PLAIN, SECRET, Got, Receiver, receiving

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = "admin-token-0123456789abcdef"
SCRIPT = "default: {turns: [{text: Hello, usage: {input: 8, output: 2}}]}"
BUDGETS: list[dict[str, Any]] = [
    {"id": "stops", "agent": "bot", "window": "day", "requests": 10, "warn_at": 0.5},
    {"id": "warns", "agent": "bot", "window": "day", "usd": 0.000048, "on_exceed": "warn"},
    {"id": "tools", "agent": "bot", "window": "day", "tool_calls": 100},
]


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    every: Receiver
    some: Receiver
    folder: Path

    async def got(self, event: str, count: int = 1) -> list[Got]:
        """The events of a kind that the endpoint for all got, once there are so many."""
        found: list[Got] = []

        def there() -> bool:
            found[:] = [got for got in self.every.taken if got.body["type"] == event]
            return len(found) >= count

        await until(there, f"{count} × {event} arrive")
        return found

    async def cli(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of a command."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llm_proxy", *arguments, "--config", str(self.folder / "proxy.yaml")),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"LLM_PROXY_TOKEN": ADMIN, "PATH": "", "COLUMNS": "250"},
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("webhooks")
    async with running(parse_script(SCRIPT)) as upstream, receiving() as every, receiving(PLAIN) as some:
        settings = config(
            upstream.base_url,
            budgets=BUDGETS,
            webhooks=[
                {"id": "every", "url": every.url, "secret": SECRET},
                {"id": "some", "url": some.url, "secret": PLAIN, "events": ["budget.exceeded"]},
            ],
        )
        settings["server"]["admin_token"] = ADMIN
        async with ProxyProcess(folder, settings, workers=2) as proxy:
            yield House(proxy, every, some, folder)


async def test_levels_are_told_once_with_many_calls_at_once(house: House) -> None:
    async def one(_: int) -> None:
        async with house.proxy.sdk() as sdk:
            await sdk.chat.completions.create(**ask(max_tokens=2))

    await asyncio.gather(*map(one, range(10)))
    warned = await house.got("budget.warned", 2)
    (exceeded,) = await house.got("budget.exceeded")
    await house.proxy.settled()
    assert len({got.id for got in warned}) == 2
    told = {got.body["data"]["limit"]: got.body["data"] for got in warned}
    assert set(told) == {"stops", "warns"}
    stops = told["stops"]
    assert (stops["unit"], stops["level"], stops["maximum"], stops["window"]) == ("requests", 5, 10, "day")
    assert stops["used"] >= 5
    assert stops["agent_id"] == "bot"
    assert stops["resets_at"].endswith("T00:00:00.000Z")
    assert house.proxy.view(stops["call_id"]).run_id == stops["run_id"]
    assert exceeded.body["data"]["limit"] == "warns"
    assert (exceeded.body["data"]["level"], exceeded.body["data"]["maximum"]) == (48, 48)
    await until(lambda: len(house.some.taken) == 1, "the other webhook got the one event that it wants")
    assert house.some.taken[0].id == exceeded.id
    query = select(records.c.body).where(records.c.kind == RecordKind.BUDGET_REACHED.value)
    with house.proxy.engine.connect() as connection:
        reached = [bodies.read_reached(body) for body in connection.execute(query).scalars()]
    assert sorted((body.limit, body.event) for body in reached) == [
        ("stops", "budget.warned"),
        ("warns", "budget.exceeded"),
        ("warns", "budget.warned"),
    ]


async def test_a_refusal_is_told_once_and_counted_each_time(house: House) -> None:
    """Each of two processes may tell it once."""
    async with house.proxy.sdk() as sdk:
        for _ in range(10):
            with pytest.raises(openai.RateLimitError, match="'stops'"):
                await sdk.chat.completions.create(**ask(max_tokens=2))
    refused = await house.got("budget.refused")
    await asyncio.sleep(1.5)
    assert 1 <= len({got.id for got in await house.got("budget.refused")}) <= 2
    data = refused[0].body["data"]
    assert (data["limit"], data["used"], data["held"], data["asked"], data["maximum"]) == (
        "stops",
        10,
        0,
        1,
        10,
    )
    assert "allows 10 requests per day: 10 used" in data["message"]
    async with aiohttp.ClientSession() as http:
        counts = 0.0
        for _ in range(40):
            async with http.get(f"{house.proxy.origin}/metrics", headers={"connection": "close"}) as reply:
                lines = (await reply.text()).splitlines()
            mine = [
                x for x in lines if "budget_events_total" in x and '"stops"' in x and '"budget.refused"' in x
            ]
            counts = max([counts, *(float(line.rsplit(" ", 1)[1]) for line in mine)])
    assert 5 <= counts <= 10


async def test_what_operators_do_is_told_without_a_secret(house: House) -> None:
    headers = {"authorization": f"Bearer {ADMIN}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.post(f"{house.proxy.origin}/admin/keys", json={"agent_id": "bot"}) as reply:
            issued = await reply.json()
        async with http.post(f"{house.proxy.origin}/admin/keys/{issued['id']}/revoke") as reply:
            assert reply.status == 200
    (told,) = await house.got("key.issued")
    (revoked,) = await house.got("key.revoked")
    assert told.body["data"]["key_id"] == revoked.body["data"]["key_id"] == issued["id"]
    assert told.body["data"]["by"] == "admin_token"
    everything = json.dumps([got.body for got in house.every.tries])
    assert issued["key"] not in everything
    assert KEY not in everything


async def test_the_command_line_lists_tests_and_redelivers(house: House) -> None:
    status, out, _ = await house.cli("webhooks", "list", "--json")
    lines = {line["id"]: line for line in json.loads(out)}
    assert status == 0
    assert lines["some"]["events"] == ["budget.exceeded"]
    assert (lines["some"]["waiting"], lines["some"]["delivered"], lines["some"]["given_up"]) == (0, 1, 0)
    assert SECRET not in out
    url = ("--url", house.proxy.origin)
    status, out, err = await house.cli("webhooks", "test", "some", *url, "--json")
    assert (status, err) == (0, "")
    sent = json.loads(out)
    await until(lambda: "webhook.test" in house.some.events(), "the test arrives")
    assert house.some.taken[-1].id == sent["id"]
    status, out, _ = await house.cli("webhooks", "redeliver", sent["id"], *url)
    assert (status, "on its way to some again" in out) == (0, True)
    await until(lambda: house.some.events().count("webhook.test") == 2, "it arrives again")

    async def delivered() -> bool:
        _, listed, _ = await house.cli("webhooks", "deliveries", "--webhook", "some", "--json")
        return [line["status"] for line in json.loads(listed)] == ["delivered", "delivered"]

    await until(delivered, "both are told as delivered")
    status, out, _ = await house.cli("webhooks", "deliveries", "--limit", "1")
    assert (status, "webhook.test" in out, "delivered" in out) == (0, True, True)
    status, _, err = await house.cli("webhooks", "test", "som", *url)
    assert (status, "did you mean 'some'?" in err) == (1, True)
    status, _, err = await house.cli("webhooks", "redeliver", "nothing", *url)
    assert (status, "There is no delivery 'nothing'" in err) == (1, True)


async def test_a_proxy_killed_in_mid_delivery_delivers_after_it_is_back(tmp_path: Path) -> None:
    async with running(parse_script(SCRIPT)) as upstream, receiving() as receiver:
        receiver.answer = lambda _, n: HANG if n == 0 else 200
        settings = config(
            upstream.base_url,
            budgets=[{"id": "b", "agent": "bot", "window": "day", "requests": 1, "on_exceed": "warn"}],
            webhooks=[{"id": "w", "url": receiver.url, "secret": SECRET, "events": ["budget.exceeded"]}],
        )
        async with ProxyProcess(tmp_path, settings) as proxy:
            async with proxy.sdk() as sdk:
                await sdk.chat.completions.create(**ask())
            await until(lambda: len(receiver.tries) == 1, "it is under way")
            proxy.kill9()
            await proxy.restart()
            await until(lambda: receiver.taken, "it arrives", 40)
    assert len({got.id for got in receiver.tries}) == 1
    assert receiver.events() == ["budget.exceeded"]
