"""A denied tool call reaches no agent, whatever dialect it speaks and whatever its model's server speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.dialect_agents import (
    AGENTS,
    JUDGED,
    UPSTREAMS,
    Agent,
    MessagesAgent,
    ResponsesAgent,
    each_speaking,
)
from tests.proxy import ProxyProcess, config

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = b"SECRET"
"""Stands in every part of the arguments of a call that is denied."""
_BAD = "{name: mail_send, arguments: {to SECRET: SECRET, body: [SECRET, {SECRET: SECRET SECRET}]}}"
_READ = '{name: crm_read, arguments: {id: "7"}}'
_SEARCH = '{name: kb_search, arguments: {id: "8"}}'
READ, SEARCH = ("crm_read", {"id": "7"}), ("kb_search", {"id": "8"})
ARRANGEMENTS: dict[str, tuple[list[str], list[Any]]] = {
    "alone": ([_BAD], []),
    "first": ([_BAD, _READ, _SEARCH], [READ, SEARCH]),
    "middle": ([_READ, _BAD, _SEARCH], [READ, SEARCH]),
    "last": ([_READ, _SEARCH, _BAD], [READ, SEARCH]),
    "both ends": ([_BAD, _READ, _BAD], [READ]),
    "silent": ([_BAD], []),
    "silent pair": ([_READ, _BAD], [READ]),
}


def _turn(name: str, calls: list[str]) -> str:
    words = "" if name.startswith("silent") else "reasoning: I should look first., text: One moment., "
    return (
        f"  - {{when: {{last_user_contains: <{name}>, turn: 0}}, {words}tool_calls: [{', '.join(calls)}]}}\n"
    )


_CUSTOM = (
    "[{name: scratch, input: two plus two}, {name: shell_run, input: SECRET SECRET SECRET SECRET SECRET}]"
)
SCRIPT = f"""
default:
  turns:
{"".join("  " + _turn(name, calls) for name, (calls, _) in ARRANGEMENTS.items())}
    - {{when: {{last_user_contains: <custom>, turn: 0}}, reasoning: Hm., tool_calls: {_CUSTOM}}}
    - {{when: {{last_user_contains: <web>}}, server_tools: [{{query: otters}}], text: Otters.}}
    - {{text: All done.}}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "dialects", "version": 1},
    "on_deny": "replace",
    "tools": {
        **JUDGED,
        "scratch": {
            "effect": "read",
            "tier": "autonomous",
            "result": {"trust": "internal"},
            "args": {"type": "object", "required": ["input"], "additionalProperties": False},
        },
        "shell_run": {"effect": "irreversible", "tier": "prohibited"},
    },
}
POLICY["tools"]["scratch"]["args"]["properties"] = {"input": {"type": "string"}}


@dataclass(frozen=True)
class House:
    replace: ProxyProcess
    error: ProxyProcess


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        models = each_speaking(upstream.origin)
        price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": 8000}
        settings = config(upstream.base_url, models=models, prices={"m": price})
        async with (
            ProxyProcess(tmp_path_factory.mktemp("replace"), settings, policy=POLICY) as replace,
            ProxyProcess(
                tmp_path_factory.mktemp("error"), settings, policy=POLICY | {"on_deny": "error"}
            ) as error,
        ):
            yield House(replace, error)


def _checked(proxy: ProxyProcess, agent: Agent, upstream: str) -> Any:
    """The record of the agent's newest call, which holds what the agent received, without a denied byte."""
    got = agent.tape.bytes
    assert SECRET not in got, "arguments of a denied call reached the client"
    view = proxy.view(agent.tape.call_id)
    assert view.dialect == agent.dialect
    assert (view.upstream_dialect or view.dialect) == upstream
    assert view.released is not None
    assert got.startswith(view.released) if view.problem else got == view.released
    assert SECRET in (view.emitted or b"")
    return view


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("arrangement", ["both ends", "silent", "silent pair"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_denied_among_allowed(
    house: House, kind: type[Agent], upstream: str, arrangement: str, stream: bool
) -> None:
    proxy, run = house.replace, f"{kind.dialect}-{upstream}-{arrangement}-{stream}"
    calls, allowed = ARRANGEMENTS[arrangement]
    think = not arrangement.startswith("silent")
    async with kind(proxy, upstream, run=run, think=think) as agent:
        heard = await agent.say(f"do it <{arrangement}>", stream=stream)
        view = _checked(proxy, agent, upstream)
        assert heard.calls == allowed
        assert heard.text.count("denied by rule 'prohibited'") == calls.count(_BAD)
        assert heard.stop == agent.ends[bool(allowed)]
        if think:
            assert heard.text.startswith("One moment.")
            assert heard.thought == "I should look first."
        judged = [(d.tool, d.decision) for d in view.decisions]
        assert judged == [
            ("mail_send", "deny") if call == _BAD else (call.split(",")[0][7:], "allow") for call in calls
        ]
        assert view.status is Status.OK
        if allowed:
            heard = await agent.answer(stream=stream)
        else:
            heard = await agent.say("then do without", stream=stream)
        assert (heard.text, heard.calls, heard.stop) == ("All done.", [], agent.ends[False])
    answered = [result.tool for result in proxy.view(agent.tape.call_id).results]
    assert answered == [name for name, _ in allowed]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
async def test_freeform_tools(house: House, upstream: str, stream: bool) -> None:
    """Their text is judged as the argument `input`, whichever way it came."""
    proxy = house.replace
    async with ResponsesAgent(proxy, upstream, run=f"custom-{upstream}-{stream}") as agent:
        agent.custom = True
        heard = await agent.say("do it <custom>", stream=stream)
        view = _checked(proxy, agent, upstream)
        assert heard.calls == [("scratch", "two plus two")]
        assert "'shell_run' was denied by rule 'prohibited'" in heard.text
        assert [(d.tool, d.decision) for d in view.decisions] == [("scratch", "allow"), ("shell_run", "deny")]
        assert (await agent.answer(stream=stream)).text == "All done."


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("arrangement", ["alone", "middle", "silent"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_on_deny_error(
    house: House, kind: type[Agent], upstream: str, arrangement: str, stream: bool
) -> None:
    run = f"error-{kind.dialect}-{upstream}-{arrangement}-{stream}"
    think = arrangement != "silent"
    async with kind(house.error, upstream, run=run, think=think) as agent:
        with pytest.raises((openai.APIError, anthropic.APIStatusError)) as error:
            await agent.say(f"do it <{arrangement}>", stream=stream)
        view = _checked(house.error, agent, upstream)
        assert b"crm_read" not in agent.tape.bytes.replace(_echoed_tools(agent), b"")
    assert view.status is Status.REFUSED
    assert view.cost_micro_usd > 0
    assert [d.rule for d in view.decisions].count("prohibited") == 1
    assert {d.rule for d in view.decisions} <= {"prohibited", "sibling-denied"}, "nothing of it is released"
    assert "'prohibited'" in error.value.message
    body: Any = error.value.body
    if kind is MessagesAgent:
        assert body["error"]["type"] == "permission_error"
        assert body["error"]["code"] == "policy_denied"
    else:
        assert body["code"] == "policy_denied"
    if not stream:
        assert isinstance(error.value, (openai.PermissionDeniedError, anthropic.PermissionDeniedError))


def _echoed_tools(agent: Agent) -> bytes:
    """A Responses stream repeats the request's tools when it starts."""
    return b'"name":"crm_read"' if isinstance(agent, ResponsesAgent) else b"\0"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("upstream", UPSTREAMS[1:])
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_tools_of_the_provider_are_recorded(
    house: House, kind: type[Agent], upstream: str, stream: bool
) -> None:
    """What the provider ran itself is not judged, since it was done; it is there to be seen."""
    async with kind(
        house.replace, upstream, run=f"web-{kind.dialect}-{upstream}-{stream}", think=False
    ) as agent:
        heard = await agent.say("look <web>", stream=stream)
        view = house.replace.view(agent.tape.call_id)
    assert heard.text == "Otters."
    assert (heard.calls, heard.stop, view.decisions) == ([], agent.ends[False], ())
    assert view.reply is not None
    assert "web_search" in [tool.name for tool in view.reply.choices[0].server_tools]
