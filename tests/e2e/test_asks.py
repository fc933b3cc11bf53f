"""Calls that ask a person, over every dialect and two workers: held, let go, told to come back, counted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.dialect_agents import AGENTS, UPSTREAMS, Agent, each_speaking
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, headers, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

DANA = "dana-token-0123456789"
CROWD = 40
SCRIPT = """
default:
  turns:
    - {when: {last_user_contains: <held>, turn: 0}, text: One moment., tool_calls: [{name: crm_read, arguments: {id: "7"}}, {name: refund, arguments: {id: "9"}}]}
    - {when: {last_user_contains: <later>}, tool_calls: [{name: wire, arguments: {id: "5"}}]}
    - {when: {last_user_contains: <bad>}, tool_calls: [{name: mail_send, arguments: {id: "5"}}]}
    - {when: {last_user_contains: <draft>}, tool_calls: [{name: mail_draft, arguments: {id: 1}}]}
    - {when: {last_user_contains: <stall>}, text: "one two three four five six seven eight", stall_after: 6}
    - {text: All done.}
"""  # noqa: E501
POLICY: dict[str, Any] = {
    "policy": {"id": "asks", "version": 1},
    "on_deny": "replace",
    "tools": {
        "crm_read": {"effect": "read", "tier": "autonomous", "result": {"trust": "internal"}},
        "refund": {"effect": "write", "tier": "human-approval", "result": {"trust": "internal"}},
        "wire": {"effect": "write", "tier": "human-approval", "approval": "later"},
        "mail_draft": {"effect": "write", "tier": "autonomous"},
        "mail_send": {"effect": "irreversible", "tier": "prohibited"},
    },
    "caps": {"sums": [{"id": "drafts", "tool": "mail_draft", "field": "id", "per": "agent-day", "max": 7}]},
    "approvals": {
        "default": {"approvers": ["group:leads"], "hold_s": 20},
        "later": {"approvers": ["group:leads"], "hold_s": 0},
    },
    "freeze": {"on": {"denials_per_run": 2}},
}


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    http: aiohttp.ClientSession

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        told = {"authorization": f"Bearer {DANA}"}
        data = None if body is None else json.dumps(body)
        at = f"{self.proxy.origin}/admin{path}"
        async with self.http.request(method, at, headers=told, data=data) as reply:
            answer = await reply.json()
            assert reply.status == 200, answer
            return answer

    async def asked(self, run: str) -> str:
        """The one approval that was opened in the run."""
        found: list[Any] = []

        async def there() -> bool:
            found[:] = await self.admin("GET", f"/approvals?run={run}")
            return bool(found)

        await until(there, f"an approval waits in {run}")
        assert len(found) == 1
        return found[0]["id"]

    async def say(self, text: str, run: str, key: str = KEY, **more: Any) -> tuple[int, Any, str]:
        """A whole reply over chat: status, body, the call's id."""
        body, told = ask(text, **({"model": "openai_chat"} | more)), headers(key, x_run_id=run)
        async with self.http.post(self.proxy.url, json=body, headers=told) as reply:
            return reply.status, await reply.json(), reply.headers["x-call-id"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        models = each_speaking(upstream.origin)
        settings = config(
            upstream.base_url,
            models=models,
            prices={"m": {"input_cost_per_token": 1e-6, "max_output_tokens": 8000}},
            agents={
                "bot": {"keys": [KEY], "models": ["*"]},
                "risky": {"keys": [OTHER_KEY], "models": ["*"]},
            },
            operators=[{"id": "dana@example.com", "roles": ["approver"], "groups": ["leads"], "token": DANA}],
        )
        async with (
            ProxyProcess(tmp_path_factory.mktemp("asks"), settings, policy=POLICY, workers=2) as proxy,
            aiohttp.ClientSession() as http,
        ):
            yield House(proxy, http)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_a_held_reply_goes_out_as_it_came(
    house: House, kind: type[Agent], upstream: str, stream: bool
) -> None:
    run = f"{kind.dialect}-{upstream}-{stream}"
    async with kind(house.proxy, upstream, run=run, think=False) as agent:
        reply = asyncio.create_task(agent.say("do it <held>", stream=stream))
        id_ = await house.asked(run)
        assert not reply.done()
        await house.admin("POST", f"/approvals/{id_}/approve", {"reason": "fine"})
        heard = await asyncio.wait_for(reply, 10)
        assert (heard.text, heard.calls) == (
            "One moment.",
            [("crm_read", {"id": "7"}), ("refund", {"id": "9"})],
        )
        assert heard.stop == agent.ends[True]
        view = house.proxy.view(agent.tape.call_id)
        assert [(d.rule, d.approval) for d in view.decisions] == [("tier:autonomous", ""), ("approved", id_)]
        if upstream == kind.dialect:
            came = [event for event in (view.emitted or b"").split(b"\n\n") if b'"choices":[]' not in event]
            assert agent.tape.bytes == b"\n\n".join(came)  # less the usage that nobody asked for
        assert (await agent.answer(stream=stream)).text == "All done."


async def test_a_call_that_waits_comes_again_and_goes_through_once(house: House) -> None:
    _, body, _ = await house.say("<later>", "later")
    id_ = await house.asked("later")
    assert f"NOT EXECUTED, waiting for approval {id_}" in body["choices"][0]["message"]["content"]
    await house.admin("POST", f"/approvals/{id_}/approve", {"reason": ""})
    _, body, _ = await house.say("<later>", "later")
    [call] = body["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "wire"
    _, body, _ = await house.say("<later>", "later")
    assert not body["choices"][0]["message"].get("tool_calls")
    assert len(await house.admin("GET", "/approvals?run=later&status=all")) == 2


async def test_one_grant_over_two_workers_lets_one_call_go(house: House) -> None:
    await house.say("<later>", "once")
    await house.admin("POST", f"/approvals/{await house.asked('once')}/approve", {"reason": ""})
    found = await asyncio.gather(*[house.say("<later>", "once") for _ in range(CROWD)])
    answered = [body for status, body, _ in found if status == 200]
    released = [body for body in answered if body["choices"][0]["message"].get("tool_calls")]
    assert (len(answered), len(released)) == (CROWD, 1)


async def test_a_sum_over_two_workers_and_many_runs_is_exact(house: House) -> None:
    found = await asyncio.gather(*[house.say("<draft>", f"draft-{n}") for n in range(CROWD)])
    rules = Counter(house.proxy.view(call_id).decisions[0].rule for _, _, call_id in found)
    assert rules == {"tier:autonomous": 7, "sum:drafts": CROWD - 7}
    assert len({house.proxy.writer_of(call_id) for _, _, call_id in found}) == 2


async def test_a_caller_who_leaves_while_held_is_charged_for_no_call(house: House) -> None:
    reply = asyncio.create_task(house.say("<held>", "left", stream=True))
    id_ = await house.asked("left")
    reply.cancel()
    await asyncio.gather(reply, return_exceptions=True)
    await house.proxy.settled()
    [view] = house.proxy.views(run="left")
    assert (view.status, view.decisions) == (Status.CLIENT_GONE, ())
    assert (await house.admin("GET", f"/approvals/{id_}"))["status"] == "pending"


async def test_the_denial_that_freezes_an_agent_ends_its_open_streams(house: House) -> None:
    streaming = asyncio.create_task(_read(house, "<stall>", "open"))
    await until(lambda: house.proxy.views(run="open"), "the stream is open")
    status, _, _ = await house.say("<bad>", "bad", OTHER_KEY)
    assert status == 200
    status, body, _ = await house.say("<bad>", "bad", OTHER_KEY)
    assert (status, body["error"]["code"]) == (403, "agent_frozen")
    assert "2 tool calls of run bad were denied, the last by rule prohibited" in body["error"]["message"]
    got = await asyncio.wait_for(streaming, 5)
    assert b"agent_frozen" in got
    status, body, _ = await house.say("hi", "new", OTHER_KEY)
    assert (status, body["error"]["code"]) == (403, "agent_frozen")
    assert (await house.say("hi", "new"))[0] == 200


async def _read(house: House, text: str, run: str) -> bytes:
    body = ask(text, model="openai_chat", stream=True)
    async with house.http.post(house.proxy.url, json=body, headers=headers(OTHER_KEY, x_run_id=run)) as reply:
        return await reply.read()
