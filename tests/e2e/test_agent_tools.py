"""`agents.X.tools`, an envelope's tools and `scopes` hold at the gate in every dialect, policy or not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.records.view import CallView, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.e2e.dialect_agents import UPSTREAMS, speaking
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config, headers, target

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "ZQ"
"""Stands in every piece of the arguments of the call that must not get through."""
SCRIPT = f"""
models:
  m:
    turns:
      - tool_calls:
          - {{name: crm_read, arguments: {{id: "7"}}}}
          - {{name: mail_send, arguments: {{id: {SECRET * 20}}}}}
"""
FREE_KEY = "sk-free-0123456789abcdef"
_ASK = [{"role": "user", "content": "hi"}]
_SCHEMA = {"type": "object", "properties": {"id": {"type": "string"}}}
DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/chat/completions",
        {
            "model": "m-openai_chat",
            "messages": _ASK,
            "tools": [
                {"type": "function", "function": {"name": n, "parameters": _SCHEMA}}
                for n in ("crm_read", "mail_send")
            ],
        },
    ),
    "responses": (
        "/responses",
        {
            "model": "m-openai_responses",
            "input": "hi",
            "tools": [
                {"type": "function", "name": n, "parameters": _SCHEMA} for n in ("crm_read", "mail_send")
            ],
        },
    ),
    "messages": (
        "/messages",
        {
            "model": "m-anthropic_messages",
            "messages": _ASK,
            "max_tokens": 50,
            "tools": [{"name": n, "input_schema": _SCHEMA} for n in ("crm_read", "mail_send")],
        },
    ),
}
POLICY: dict[str, Any] = {
    "policy": {"id": "scopes", "version": 1},
    "on_deny": "replace",
    "tools": {
        name: {
            "effect": "read",
            "tier": "autonomous",
            "args": {"type": "object", "properties": {"id": {"type": "string"}}},
        }
        for name in ("crm_read", "mail_send")
    },
}
AGENTS: dict[str, Any] = {
    "bot": {"keys": [KEY], "models": ["*"], "tools": ["crm_*"]},
    "none": {"keys": [OTHER_KEY], "models": ["*"], "tools": []},
    "free": {"keys": [FREE_KEY], "models": ["*"], "scopes": {"ids": ["7"]}},
}


@dataclass
class House:
    proxies: dict[str, ProxyProcess]
    http: aiohttp.ClientSession
    upstream: Scripted

    async def call(
        self, at: str, dialect: str, *, stream: bool, key: str = KEY, **more: str
    ) -> tuple[int, str, CallView]:
        """Status, everything that the caller received, and the record."""
        proxy = self.proxies[at]
        path, body = DIALECTS[dialect]
        data = json.dumps(body | {"stream": stream}).encode()
        async with self.http.post(proxy.base_url + path, data=data, headers=headers(key, **more)) as reply:
            return reply.status, (await reply.read()).decode(), proxy.view(reply.headers["x-call-id"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream, aiohttp.ClientSession() as http:
        origin = upstream.base_url.removesuffix("/v1")
        models: dict[str, Any] = {
            f"m-{dialect}": {"targets": [speaking(dialect, f"m-{dialect}", origin)], "retries": 0}
            for dialect in UPSTREAMS
        }
        told = config(
            upstream.base_url,
            models={"m": {"targets": [target("up", upstream.base_url)]}} | models,
            default_model="m",
            agents=AGENTS,
            unpriced="free",
        )
        scoped = json.loads(json.dumps(POLICY))
        for tool in scoped["tools"].values():
            tool["check"] = {"id": "scope:ids"}
        shadow = POLICY | {"policy": POLICY["policy"] | {"mode": "shadow"}}
        folder = tmp_path_factory.mktemp
        async with (
            ProxyProcess(folder("none"), told) as none,
            ProxyProcess(folder("shadow"), told, policy=shadow) as shadowed,
            ProxyProcess(folder("scoped"), told, policy=scoped) as scopes,
        ):
            yield House({"none": none, "shadow": shadowed, "scoped": scopes}, http, upstream)


def verdicts(view: CallView) -> list[tuple[str, str, str, bool]]:
    return [(d.tool, d.decision, d.rule, d.shadow) for d in view.decisions]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("at", ["none", "shadow"])
async def test_a_tool_that_the_agent_does_not_list_never_reaches_it(
    house: House, at: str, dialect: str, *, stream: bool
) -> None:
    status, got, view = await house.call(at, dialect, stream=stream)
    assert status == 200
    assert SECRET not in got
    assert "crm_read" in got
    assert "denied by rule 'agent-tools'" in got
    (_, allowed, _, _), denied = verdicts(view)
    assert allowed == "allow"
    assert denied == ("mail_send", "deny", "agent-tools", False)
    assert view.status is Status.OK


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_agent_that_lists_none_is_given_none(house: House, dialect: str, *, stream: bool) -> None:
    _, got, view = await house.call("none", dialect, stream=stream, key=OTHER_KEY)
    assert SECRET not in got
    assert [rule for _, _, rule, _ in verdicts(view)] == ["agent-tools"] * 2


@pytest.mark.parametrize("stream", [False, True])
async def test_without_a_list_nothing_waits_and_nothing_is_judged(house: House, *, stream: bool) -> None:
    _, got, view = await house.call("none", "chat", stream=stream, key=FREE_KEY)
    assert SECRET in got
    assert "llm-proxy" not in got
    assert {decision for _, decision, _, _ in verdicts(view)} <= {"allow"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_envelope_lists_tools_for_its_run(house: House, dialect: str, *, stream: bool) -> None:
    proxy = house.proxies["none"]
    wish = {"purpose": "look up", "envelope": {"tools": ["crm_*"]}}
    runs = proxy.base_url + "/runs"
    async with house.http.post(runs, json=wish, headers=headers(FREE_KEY)) as reply:
        assert reply.status == 201, await reply.text()
        opened = await reply.json()
    for key, more in ((opened["token"], {}), (FREE_KEY, {"x_run_id": opened["run_id"]})):
        _, got, view = await house.call("none", dialect, stream=stream, key=key, **more)
        assert view.run_id == opened["run_id"]
        assert SECRET not in got
        assert "denied by rule 'envelope'" in got
        assert verdicts(view)[1] == ("mail_send", "deny", "envelope", False)


@pytest.mark.parametrize("path", ["/batches", "/threads/runs", "/realtime/sessions"])
async def test_paths_whose_tool_calls_nobody_would_judge_stay_shut(house: House, path: str) -> None:
    proxy = house.proxies["none"]
    before = house.upstream.stats.total
    async with house.http.post(proxy.base_url + path, json={"model": "m"}, headers=headers()) as reply:
        body = await reply.json()
        assert (reply.status, body["error"]["code"]) == (403, "policy_denied")
        assert "for this agent, whose tools are limited" in body["error"]["message"]
    assert house.upstream.stats.total == before


async def test_a_check_by_scope_asks_the_agents_own_scopes(house: House) -> None:
    """`free` may touch id 7; `bot` has no such scope, so nothing is within it."""
    _, got, view = await house.call("scoped", "chat", stream=False, key=FREE_KEY)
    assert SECRET not in got
    assert [(tool, decision, rule) for tool, decision, rule, _ in verdicts(view)] == [
        ("crm_read", "allow", "tier:autonomous"),
        ("mail_send", "deny", "check:id"),
    ]
    _, got, view = await house.call("scoped", "chat", stream=False)
    assert [(tool, rule) for tool, _, rule, _ in verdicts(view)] == [
        ("crm_read", "check:id"),
        ("mail_send", "agent-tools"),
    ]
    assert view.decisions[1].hits == ("check:id",)
