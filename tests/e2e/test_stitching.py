"""Agents that send no run id: each conversation is one run, in every dialect, whatever became of calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.dialect_agents import AGENTS, JUDGED, UPSTREAMS, Agent, each_speaking
from tests.e2e.scripted_house import House
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config

pytestmark = pytest.mark.asyncio(loop_scope="module")

_BAD = "{name: mail_send, arguments: {to: SECRET}}"
_READ = '{name: crm_read, arguments: {id: "7", more: [1, 2.50, {b: x, a: "é"}]}}'
_SEARCH = '{name: kb_search, arguments: {id: "8"}}'
SCRIPT = f"""
default:
  turns:
    - {{when: {{last_user_contains: <bye>}}, reasoning: Done., text: "  Good\\n\\n bye. "}}
    - {{when: {{last_user_contains: <noted>, turn: 0}}, text: I do three., reasoning: Hm.,
        tool_calls: [{_BAD}, {_READ}, {_SEARCH}]}}
    - {{when: {{last_user_contains: <denied>, tool_answered: mail_send}}, text: I can not mail that.}}
    - {{when: {{last_user_contains: <denied>, turn: 0}}, tool_calls: [{_BAD}]}}
    - {{when: {{last_user_contains: <secret>, turn: 0}}, text: Her key is sk-ant-api03-{"q" * 95}.}}
    - {{when: {{turn: 0}}, reasoning: I look., text: One moment., tool_calls: [{_READ}, {_SEARCH}]}}
    - {{text: All done.}}
"""
ASKED = ("plain", "noted", "denied", "secret")
POLICY: dict[str, Any] = {
    "policy": {"id": "stitching", "version": 1},
    "declare": "pass",
    "tools": JUDGED,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        agents = {
            name: {"keys": [key], "models": ["*"]} for name, key in (("bot", KEY), ("other", OTHER_KEY))
        }
        settings = config(upstream.base_url, models=each_speaking(upstream.origin), agents=agents, prices={})
        async with ProxyProcess(tmp_path_factory.mktemp("stitching"), settings, policy=POLICY) as proxy:
            yield House(proxy, upstream)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_each_conversation_is_one_run(
    house: House, kind: type[Agent], upstream: str, stream: bool
) -> None:
    """Several at once, under one key."""

    async def talk(asked: str) -> tuple[str, int]:
        async with kind(house.proxy, upstream, run="") as agent:
            await agent.say(f"<{asked}> {stream} please", stream=stream)
            first = agent.tape.call_id
            if answered := bool(agent.answers):
                await agent.answer(stream=stream)
            await agent.say("<bye>", stream=not stream)
            await agent.say("And again: <bye>", stream=stream)
            assert agent.tape.headers["x-run-id"] == first
            return first, 3 + answered

    for run, calls in await asyncio.gather(*map(talk, ASKED)):
        views = house.proxy.views(run=run)
        assert len(views) == calls
        assert all(view.run_inferred for view in views)
