"""A model is offered what its agent may call, in every dialect; what a provider runs itself is judged."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio

from llm_proxy.records.view import CallView, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.e2e.dialect_agents import AGENTS, FUNCTIONS, JUDGED, UPSTREAMS, Agent, each_speaking
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config, headers

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = """
default:
  turns:
    - when: {last_user_contains: <look and send>}
      server_tools: [{query: otters}]
      tool_calls: [{name: kb_search, arguments: {id: "1"}}]
    - {when: {last_user_contains: <look>}, server_tools: [{query: otters}], text: Otters.}
    - {text: Done.}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "declared", "version": 1},
    "on_deny": "replace",
    "destinations": {"own": {"hosts": ["mcp.example.com"]}},
    "tools": {
        **JUDGED,
        "web_search": {
            "effect": "read",
            "tier": "autonomous",
            "sink": "external",
            "result": {"sensitivity": "internal", "trust": "untrusted"},
        },
        "file_search": {"effect": "read", "tier": "human-approval"},
        "mcp__crm": {
            "effect": "read",
            "tier": "pre-approved",
            "check": {"server_url": "own"},
            "args": {"type": "object"},
        },
    },
    "rules": [
        {"id": "tainted", "then": "deny", "when": 'tool.name == "kb_search" && run.untrusted'},
        {"id": "exfil", "then": "deny", "when": 'tool.sink == "external" && run.untrusted'},
    ],
}
OFFERED = ["crm_read", "kb_search"]
WITHHELD = [
    (name, "prohibited" if name == "mail_send" else "unknown-tool")
    for name in FUNCTIONS
    if name not in OFFERED
]
SHADOW = POLICY | {"policy": POLICY["policy"] | {"mode": "shadow"}}


@dataclass(frozen=True)
class House:
    proxies: dict[str, ProxyProcess]
    upstream: Scripted
    http: aiohttp.ClientSession

    def sent(self) -> dict[str, Any]:
        """What the model's server got last."""
        return json.loads(self.upstream.seen[-1].body)

    async def responses(
        self, run: str, *, at: str = "filter", say: str = "hi", key: str = KEY, **more: Any
    ) -> tuple[int, dict[str, Any], CallView]:
        """A Responses call to its own kind of server."""
        proxy = self.proxies[at]
        body = {"model": "openai_responses", "input": say, "store": False} | more
        told = headers(key, x_run_id=run)
        async with self.http.post(proxy.base_url + "/responses", json=body, headers=told) as reply:
            return reply.status, await reply.json(), proxy.view(reply.headers["x-call-id"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream, aiohttp.ClientSession() as http:
        models = each_speaking(upstream.origin)
        vendor = {"provider": "deepseek", "model": "m", "base_url": upstream.base_url, "api_key": "sk-v"}
        models["litellm"] = {"targets": [vendor | {"id": "ds"}], "retries": 0}
        agents = {
            "bot": {"keys": [KEY], "models": ["*"]},
            "narrow": {"keys": [OTHER_KEY], "models": ["*"], "tools": ["kb_*"]},
        }
        told = config(upstream.base_url, models=models, agents=agents, unpriced="free")
        folder = tmp_path_factory.mktemp
        async with (
            ProxyProcess(folder("filter"), told, policy=POLICY) as filtering,
            ProxyProcess(folder("pass"), told, policy=POLICY | {"declare": "pass"}) as passing,
            ProxyProcess(folder("shadow"), told, policy=SHADOW) as shadow,
        ):
            yield House({"filter": filtering, "pass": passing, "shadow": shadow}, upstream, http)


def names(sent: dict[str, Any]) -> list[str]:
    """The tools in a body of any dialect."""
    return [tool.get("function", tool).get("name") or tool["type"] for tool in sent.get("tools", ())]


def withheld(view: CallView) -> list[tuple[str, str]]:
    return [(one.tool, one.rule) for one in view.withheld if not one.shadow]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("upstream", [*UPSTREAMS, "litellm"])
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_a_server_is_told_of_no_tool_that_may_never_be_called(
    house: House, kind: type[Agent], upstream: str, stream: bool
) -> None:
    proxy = house.proxies["filter"]
    async with kind(proxy, upstream, run=f"{kind.dialect}-{upstream}-{stream}", think=False) as agent:
        assert (await agent.say("hi", stream=stream)).text == "Done."
        view = proxy.view(agent.tape.call_id)
    assert names(house.sent()) == OFFERED
    assert withheld(view) == WITHHELD
    assert view.sent is not None
    assert names(json.loads(view.sent)) == OFFERED
    assert view.request is not None
    assert "mail_send" in names(json.loads(view.request))
    if upstream == kind.dialect:
        assert view.sent == house.upstream.seen[-1].body


@pytest.mark.parametrize("at", ["pass", "shadow"])
async def test_pass_and_shadow_keep_every_tool(house: House, at: str) -> None:
    proxy = house.proxies[at]
    async with AGENTS[0](proxy, "openai_chat", run="kept", think=False) as agent:
        await agent.say("hi", stream=False)
        view = proxy.view(agent.tape.call_id)
    assert names(house.sent()) == list(FUNCTIONS)
    assert withheld(view) == []
    would = [(one.tool, one.rule) for one in view.withheld]
    assert would == (WITHHELD if at == "shadow" else [])


async def test_an_agents_own_list_holds_in_shadow_too(house: House) -> None:
    async with AGENTS[0](
        house.proxies["shadow"], "openai_chat", run="own", key=OTHER_KEY, think=False
    ) as agent:
        await agent.say("hi", stream=False)
        view = house.proxies["shadow"].view(agent.tape.call_id)
    assert names(house.sent()) == ["kb_search"]
    assert withheld(view) == [(name, "agent-tools") for name in FUNCTIONS if name != "kb_search"]


async def test_a_forced_tool_that_is_withheld_is_refused_to_every_sdk(house: House) -> None:
    proxy, before = house.proxies["filter"], house.upstream.stats.total
    hello: Any = [{"role": "user", "content": "hi"}]
    mail: Any = {"name": "mail_send", "parameters": {"type": "object"}}
    own: Any = {"name": "mail_send", "input_schema": {"type": "object"}}
    responses_mail: Any = [{"type": "function", "strict": None, **mail}]
    async with proxy.sdk() as chat:
        with pytest.raises(openai.PermissionDeniedError, match=r"'mail_send'.*'prohibited'") as refused:
            await chat.chat.completions.create(
                model="openai_chat",
                messages=hello,
                tools=[{"type": "function", "function": mail}],
                tool_choice={"type": "function", "function": {"name": "mail_send"}},
            )
        assert refused.value.code == "policy_denied"
        with pytest.raises(openai.PermissionDeniedError, match="'mail_send'"):
            await chat.responses.create(
                model="openai_responses",
                input="hi",
                tools=responses_mail,
                tool_choice="required",
            )
    async with anthropic.AsyncAnthropic(base_url=proxy.origin, api_key=KEY, max_retries=0) as messages:
        with pytest.raises(anthropic.PermissionDeniedError, match="'mail_send'"):
            await messages.messages.create(
                model="openai_chat",
                max_tokens=9,
                messages=hello,
                tools=[own],
                tool_choice={"type": "tool", "name": "mail_send"},
            )
    assert house.upstream.stats.total == before
    view = proxy.view(refused.value.response.headers["x-call-id"])
    assert (view.status, withheld(view)) == (Status.REFUSED, [("mail_send", "prohibited")])


SEARCH, FILES, CODE = {"type": "web_search"}, {"type": "file_search"}, {"type": "code_interpreter"}


def server(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "mcp", "server_label": "crm", "server_url": url, "require_approval": "never"} | more


async def test_what_a_provider_would_run_is_judged_when_it_is_declared(house: House) -> None:
    own, foreign = server("https://mcp.example.com/x"), server("https://mcp.example.com.evil.net")
    _, _, view = await house.responses("hosted", tools=[CODE, SEARCH, FILES, foreign, own])
    assert house.sent()["tools"] == [SEARCH, own]
    rules = [
        ("code_interpreter", "unknown-tool"),
        ("file_search", "provider-run"),
        ("mcp__crm", "provider-run"),
    ]
    assert withheld(view) == rules
    status, body, view = await house.responses("hosted", tools=[CODE], tool_choice="required")
    assert (status, body["error"]["code"]) == (403, "policy_denied")
    assert view.status is Status.REFUSED


async def test_passing_refuses_what_nothing_could_stop_later(house: House) -> None:
    before = house.upstream.stats.total
    status, body, _ = await house.responses("p", at="pass", tools=[SEARCH, FILES])
    assert (status, body["error"]["code"]) == (403, "policy_denied")
    assert "'file_search' would be run by the provider itself" in body["error"]["message"]
    assert house.upstream.stats.total == before
    status, _, _ = await house.responses("p", at="pass", tools=[SEARCH])
    assert status == 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_what_the_provider_ran_is_part_of_the_run(house: House, stream: bool) -> None:
    """Its result came in unseen, before the same reply's call was judged; then searching is over, too."""
    proxy, run = house.proxies["filter"], f"ran-{stream}"
    async with proxy.sdk(default_headers={"x-run-id": run}) as sdk:
        asked: Any = {"model": "openai_responses", "input": "<look and send>", "store": False}
        asked["tools"] = [
            SEARCH,
            {"type": "function", "name": "kb_search", "parameters": {}, "strict": False},
        ]
        if stream:
            async with sdk.responses.stream(**asked) as events:
                async for _ in events:
                    pass
                reply = await events.get_final_response()
        else:
            reply = await sdk.responses.create(**asked)
    assert "denied by rule 'tainted'" in reply.output_text
    (view,) = proxy.views(run=run)
    assert [(use.tool, use.rule) for use in view.provider_tools] == [("web_search", "")]
    assert [(d.tool, d.rule) for d in view.decisions] == [("kb_search", "tainted")]
    _, _, view = await house.responses(run, tools=[SEARCH], say="again")
    assert withheld(view) == [("web_search", "exfil")]
    assert "tools" not in house.sent()


async def test_what_was_not_declared_is_told_apart_and_taints_the_run(house: House) -> None:
    _, _, view = await house.responses("undeclared", say="<look>")
    assert [(use.tool, use.rule) for use in view.provider_tools] == [("web_search", "undeclared-server-tool")]
    _, _, view = await house.responses("undeclared", say="hi", tools=[SEARCH])
    assert withheld(view) == [("web_search", "exfil")]


async def test_what_no_reply_would_show_counts_as_used(house: House) -> None:
    """Chat completions don't say that they searched."""
    proxy = house.proxies["filter"]
    asked: Any = {"model": "openai_chat", "messages": [{"role": "user", "content": "hi"}]}
    async with proxy.sdk(default_headers={"x-run-id": "unseen"}) as sdk:
        await sdk.chat.completions.create(
            **asked, web_search_options={}, extra_body={"plugins": [{"id": "web"}]}
        )
        sent = house.sent()
        await sdk.chat.completions.create(**asked, web_search_options={})
    assert "web_search_options" in sent
    assert "web_search_options" not in house.sent()
    first, second = proxy.views(run="unseen")
    assert [use.tool for use in first.provider_tools] == ["web_search", "web_search"]
    assert withheld(second) == [("web_search", "exfil")]


async def test_a_later_turn_can_not_smuggle_in_tools(house: House) -> None:
    late = {"type": "function", "name": "mail_send", "parameters": {}}
    item = {"type": "additional_tools", "role": "developer", "tools": [late, CODE]}
    said = [{"role": "user", "content": "hi"}, item, {"role": "user", "content": "go on"}]
    _, _, view = await house.responses("late", input=said)
    assert house.sent()["input"][1]["tools"] == []
    assert withheld(view) == [("mail_send", "prohibited"), ("code_interpreter", "unknown-tool")]


@pytest.mark.parametrize("upstream", ["anthropic_messages", "openai_chat"])
async def test_messages_declares_servers_and_searches(house: House, upstream: str) -> None:
    """Towards another vendor there are no such tools anyway."""
    proxy = house.proxies["filter"]
    tools: Any = [
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "code_execution_20250825", "name": "code_execution"},
        {"type": "mcp_toolset", "mcp_server_name": "other"},
        {"type": "mcp_toolset", "mcp_server_name": "crm"},
        {"name": "crm_read", "input_schema": {"type": "object"}},
    ]
    servers: Any = [
        {"type": "url", "name": "other", "url": "https://mcp.example.com/x"},
        {"type": "url", "name": "crm", "url": "https://mcp.example.com/x"},
    ]
    headers_ = {"x-run-id": f"messages-{upstream}"}
    async with anthropic.AsyncAnthropic(
        base_url=proxy.origin, api_key=KEY, max_retries=0, default_headers=headers_
    ) as sdk:
        await sdk.beta.messages.create(
            model=upstream,
            max_tokens=99,
            messages=[{"role": "user", "content": "<look>"}],
            tools=tools,
            mcp_servers=servers,
        )
    (view,) = proxy.views(run=f"messages-{upstream}")
    assert withheld(view) == [("code_execution", "unknown-tool"), ("mcp__other", "unknown-tool")]
    sent = house.sent()
    if upstream == "openai_chat":
        assert names(sent) == ["crm_read"]
        return
    assert sent["tools"] == [tools[0], tools[3], tools[4]]
    assert sent["mcp_servers"] == servers[1:]
    assert [(use.tool, use.rule) for use in view.provider_tools] == [("web_search", "")]
