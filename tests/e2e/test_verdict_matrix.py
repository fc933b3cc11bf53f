"""Deny, ask and allow, for every dialect and every upstream, whole and streamed, wherever the call stands.

On real sockets with the official SDKs: a call that is not allowed reaches no agent, nor does a byte of its
arguments; what was asked for reaches it once a person said yes, as the model wrote it; and the loop goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.dialect_agents import AGENTS, Agent, speaking
from tests.proxy import ProxyProcess, config

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = b"SECRET"
"""Stands in every part of the arguments of the call that is judged."""
ARGUMENTS = "{to SECRET: SECRET, body: [SECRET, {SECRET: SECRET SECRET}]}"
HEARD = {"to SECRET": "SECRET", "body": ["SECRET", {"SECRET": "SECRET SECRET"}]}
READ, SEARCH = ("crm_read", {"id": "7"}), ("kb_search", {"id": "8"})
JUDGED = {"allow": "mail_draft", "deny": "mail_send", "approved": "refund", "pending": "wire"}
"""Which tool the model calls for what is to come of it."""
ARRANGEMENTS = ("alone", "first", "middle", "last")
UPSTREAMS = ("openai_chat", "openai_responses", "anthropic_messages", "litellm")
TOKEN = "dana-of-the-tests-holds-this-token"
_CALLS = {
    "crm_read": '{name: crm_read, arguments: {id: "7"}}',
    "kb_search": '{name: kb_search, arguments: {id: "8"}}',
}


def placed(arrangement: str, judged: Any, others: list[Any]) -> list[Any]:
    """The judged call among the others."""
    at = {"alone": 0, "first": 0, "middle": 1, "last": 2}[arrangement]
    return [judged] if arrangement == "alone" else [*others[:at], judged, *others[at:]]


def _turn(verdict: str, arrangement: str) -> str:
    judged = f"{{name: {JUDGED[verdict]}, arguments: {ARGUMENTS}}}"
    calls = ", ".join(placed(arrangement, judged, list(_CALLS.values())))
    return (
        f"    - {{when: {{last_user_contains: <{verdict} {arrangement}>, turn: 0}}, "
        f"reasoning: I should look first., text: One moment., tool_calls: [{calls}]}}\n"
    )


SCRIPT = f"""
default:
  turns:
{"".join(_turn(verdict, arrangement) for verdict in JUDGED for arrangement in ARRANGEMENTS)}
    - {{text: All done.}}
"""
_KNOWN = {"effect": "read", "tier": "autonomous", "result": {"trust": "internal"}}
_ASKED = {"effect": "write", "tier": "human-approval", "result": {"trust": "internal"}}
POLICY: dict[str, Any] = {
    "policy": {"id": "matrix", "version": 1},
    "tools": {
        "crm_read": _KNOWN,
        "kb_search": _KNOWN,
        "mail_draft": _KNOWN,
        "mail_send": {"effect": "irreversible", "tier": "prohibited"},
        "refund": _ASKED,
        "wire": _ASKED | {"approval": "later"},
    },
    "approvals": {
        "default": {"approvers": ["group:leads"], "hold_s": 60},
        "later": {"approvers": ["group:leads"], "hold_s": 0},
    },
}


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    approver: asyncio.Task[None]


async def _approves(proxy: ProxyProcess) -> None:
    """A person who says yes to every refund."""
    head = {"authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(proxy.origin, headers=head) as http:
        while True:
            async with http.get("/admin/approvals?status=pending&limit=1000") as reply:
                assert reply.status == 200, await reply.text()
                waiting = await reply.json()
            for approval in waiting:
                if approval["tool"] == "refund":
                    path = f"/admin/approvals/{approval['id']}/approve"
                    async with http.post(path, json={"reason": "checked"}) as reply:
                        assert reply.status == 200, await reply.text()
            await asyncio.sleep(0.03)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        targets = {name: speaking(name, name, upstream.origin) for name in UPSTREAMS[:-1]}
        through = {"id": "through", "provider": "hosted_vllm", "model": "m", "base_url": upstream.base_url}
        targets["litellm"] = through | {"api_key": "sk-upstream"}
        settings = config(
            upstream.base_url,
            models={name: {"targets": [target], "retries": 0} for name, target in targets.items()},
            operators=[
                {"id": "dana@example.com", "groups": ["leads"], "roles": ["approver"], "token": TOKEN}
            ],
        )
        async with ProxyProcess(tmp_path_factory.mktemp("matrix"), settings, policy=POLICY) as proxy:
            approver = asyncio.create_task(_approves(proxy))
            yield House(proxy, approver)
            approver.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await approver


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("verdict", JUDGED)
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_a_verdict(
    house: House, kind: type[Agent], upstream: str, verdict: str, arrangement: str, stream: bool
) -> None:
    proxy, tool = house.proxy, JUDGED[verdict]
    run = f"{kind.dialect}-{upstream}-{verdict}-{arrangement}-{stream}"
    passes = verdict in ("allow", "approved")
    others = [] if arrangement == "alone" else [READ, SEARCH]
    async with kind(proxy, upstream, run=run) as agent:
        heard = await agent.say(f"do it <{verdict} {arrangement}>", stream=stream)
        assert not house.approver.done(), house.approver
        got, view = agent.tape.bytes, proxy.view(agent.tape.call_id)
        assert heard.calls == (placed(arrangement, (tool, HEARD), others) if passes else others)
        assert (SECRET in got) is passes
        assert heard.text.startswith("One moment.")
        assert heard.thought.startswith("I should look first.")
        assert heard.stop == agent.ends[bool(heard.calls)]
        assert view.status is Status.OK
        decided = {d.tool: (d.decision, d.rule) for d in view.decisions}
        assert (
            decided[tool]
            == {
                "allow": ("allow", "tier:autonomous"),
                "deny": ("deny", "prohibited"),
                "approved": ("allow", "approved"),
                "pending": ("deny", "approval-pending"),
            }[verdict]
        )
        if not passes and others:
            words = (
                "denied by rule 'prohibited'"
                if verdict == "deny"
                else "NOT EXECUTED, waiting for approval apr_"
            )
            assert words in heard.text
        if not passes and not others:
            assert heard.text.endswith("All done."), "the model was told, and went on"
        if heard.calls:
            heard = await agent.answer(stream=stream)
        else:
            heard = await agent.say("then do without", stream=stream)
        assert (heard.text, heard.calls, heard.stop) == ("All done.", [], agent.ends[False])
