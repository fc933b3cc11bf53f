"""A header or a body can narrow what a credential allows, never widen it: whose budget, whose run it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, headers, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = "an-admin-token-0123456789"
SCRIPT = "default: {turns: [{text: Hello, usage: {input: 10, output: 5}}]}"
BUDGETS = [
    {"id": "agents", "agent": "*", "window": "day", "requests": 1000},
    {"id": "victim", "agent": "victim", "window": "day", "requests": 1000},
    {"id": "runs", "agent": "*", "window": "run", "requests": 1000},
    {"id": "users", "user": "*", "window": "day", "requests": 3},
]
FOREIGN: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "an agent in headers": (
        {"x_agent_id": "victim", "x_agent": "victim", "x_litellm_agent_id": "victim"},
        {},
    ),
    "a key in another header": (
        {"x_api_key": OTHER_KEY, "api_key": OTHER_KEY, "x_litellm_api_key": OTHER_KEY},
        {},
    ),
    "an agent in baggage": ({"baggage": "agent.id=victim,run.id=mine"}, {}),
    "an agent in the body": (
        {},
        {"agent": "victim", "agent_id": "victim", "metadata": {"agent_id": "victim"}},
    ),
    "a run of another": ({"x_run_id": "theirs"}, {}),
    "a run of another in the body": ({}, {"metadata": {"run_id": "theirs"}}),
    "a parent of another": ({"x_run_id": "child", "x_parent_run_id": "theirs"}, {}),
    "a user in a header": ({"x_user_id": "ada", "x_run_id": "mine"}, {}),
    "a user in the body": ({"x_run_id": "mine"}, {"user": "ada"}),
    "a team and tags": ({"x_tags": "team=core,agent=victim", "x_team": "core", "x_run_id": "mine"}, {}),
}


@dataclass
class House:
    proxy: ProxyProcess
    http: aiohttp.ClientSession

    async def call(
        self, key: str = KEY, body: dict[str, Any] | None = None, **more: str
    ) -> tuple[int, Any, str]:
        data = json.dumps(ask() | (body or {})).encode()
        async with self.http.post(self.proxy.url, data=data, headers=headers(key, **more)) as reply:
            return reply.status, await reply.json(), reply.headers["x-call-id"]

    async def counters(self) -> dict[str, dict[str, int]]:
        await self.proxy.settled()
        return self.proxy.counters()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream, aiohttp.ClientSession() as http:
        told = config(
            upstream.base_url,
            server={"admin_token": ADMIN, "drain_s": 1},
            agents={
                "bot": {"keys": [KEY], "models": ["*"]},
                "victim": {"team": "core", "keys": [OTHER_KEY], "models": ["*"]},
            },
            budgets=BUDGETS,
        )
        async with ProxyProcess(tmp_path_factory.mktemp("narrowing"), told) as proxy:
            house = House(proxy, http)
            assert (await house.call(OTHER_KEY, x_run_id="theirs", x_user_id="ada"))[0] == 200
            yield house


def of_victim(counters: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {key: row for key, row in counters.items() if "victim" in key}


@pytest.mark.parametrize("name", FOREIGN)
async def test_what_names_another_changes_nothing_of_theirs(house: House, name: str) -> None:
    """The call is that of the key's agent, as far as it is let in; the other's counters stay as they were."""
    more, body = FOREIGN[name]
    before = of_victim(await house.counters())
    assert len(before) >= 3
    _, _, call_id = await house.call(body=body, **more)
    after = await house.counters()
    assert of_victim(after) == before
    view = house.proxy.view(call_id)
    assert view.agent_id == "bot"
    assert not view.team


async def test_a_user_that_only_the_caller_names_is_counted_with_its_agent(house: House) -> None:
    """One agent can use up what a user has with it, and not what the same name has with another."""
    statuses = [(await house.call(x_user_id="grace"))[0] for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert (await house.call(OTHER_KEY, x_user_id="grace"))[0] == 200
    keys = [key for key in await house.counters() if key.startswith("users|") and "grace" in key]
    assert len(keys) == 2


async def test_a_key_of_one_run_is_of_that_run_whatever_is_named(house: House) -> None:
    wish = json.dumps({"agent_id": "bot", "run_id": "bound"}).encode()
    at = house.proxy.origin + "/admin/keys"
    async with house.http.post(at, data=wish, headers={"authorization": f"Bearer {ADMIN}"}) as reply:
        issued = await reply.json()
    for more, body in (
        ({}, {}),
        ({"x_run_id": "free"}, {}),
        ({}, {"metadata": {"run_id": "free"}}),
        ({"baggage": "run.id=free"}, {}),
    ):
        status, _, call_id = await house.call(issued["key"], body, **more)
        view = house.proxy.view(call_id)
        assert view.run_id == "bound" or (status == 403 and view.status == "refused"), (more, status)
    assert not [key for key in await house.counters() if "free" in key]


async def test_what_can_not_be_told_from_another_is_kept_apart(house: House) -> None:
    """Ids are quoted in counters: none can be made up to stand for another's."""
    before = of_victim(await house.counters())
    for run in ("r|agent=victim", "victim|theirs", "theirs|run=theirs", "%7C", "a=b|c"):
        assert (await house.call(x_run_id=run))[0] == 200
    await until(lambda: not house.proxy.held(), "nothing is held")
    assert {k: v for k, v in of_victim(await house.counters()).items() if k in before} == before
