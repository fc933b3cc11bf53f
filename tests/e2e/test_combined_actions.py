"""Verdicts over calls and checked actions together: approvals, receipts, caps, freezes, reloads, sub-runs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.receipts.verify import verify_receipt
from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.actions_house import Actions
from tests.e2e.runs_house import ADMIN
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, headers, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CAPPED_KEY, FROZEN_KEY = "sk-capped-0123456789abcdef", "sk-frozen-0123456789abcdef"
TOKEN = "dana-of-the-tests-holds-this-token"
SCRIPT = """
default:
  turns:
    - {when: {last_user_contains: <slow>}, text: one two three four five, stall_after: 3}
    - {when: {last_user_contains: <mail>}, tool_calls: [{name: mail_send, arguments: {to: x}}]}
    - {when: {last_user_contains: <note>}, tool_calls: [{name: note_write, arguments: {text: hi}}]}
    - {when: {last_user_contains: <refund>}, tool_calls: [{name: refund, arguments: {amount: 5}}]}
    - {when: {has_tool_result: true}, text: Done.}
    - {tool_calls: [{name: hr_read, arguments: {id: "7"}}]}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "combined", "version": 1},
    "on_deny": "replace",
    "receipts": True,
    "tools": {
        "hr_read": {
            "effect": "read",
            "tier": "autonomous",
            "result": {"sensitivity": "secret", "trust": "untrusted"},
        },
        "note_write": {"effect": "write", "tier": "autonomous"},
        "mail_send": {"effect": "read", "sink": "external", "tier": "autonomous"},
        "wipe": {"effect": "irreversible", "tier": "prohibited"},
        "refund": {"effect": "write", "tier": "human-approval"},
    },
    "rules": [
        {"id": "exfil", "then": "deny", "when": 'tool.sink == "external" && run.sensitivity > tool.clearance'}
    ],
    "caps": {"day": {"writes": 7}},
    "freeze": {"on": {"denials_per_run": 3}},
    "approvals": {"default": {"approvers": ["group:leads"], "hold_s": 30}},
}


@dataclass
class House(Actions):
    people: aiohttp.ClientSession
    file: Path

    async def waiting(self, run: str) -> str:
        """The approval that waits in a run, once it does."""
        found: list[str] = []

        async def there() -> bool:
            async with self.people.get(f"/admin/approvals?run={run}&status=pending") as reply:
                found[:] = [one["id"] for one in await reply.json()]
            return bool(found)

        await until(there, f"an approval waits in {run}")
        (id_,) = found
        return id_

    async def approve(self, id_: str) -> None:
        async with self.people.post(f"/admin/approvals/{id_}/approve", json={"reason": "seen"}) as reply:
            assert reply.status == 200, await reply.text()

    async def keys(self) -> dict[str, Any]:
        return (await self.send("GET", "/.well-known/jwks.json", key=None)).body

    async def says(self, text: str, run: str, key: str = KEY, **named: Any) -> Any:
        """A model's whole reply to it, with its headers."""
        answer = await self.call(run, key, body=ask(text), **named)
        assert answer.status == 200, answer
        return answer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("combined")
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(
            upstream.base_url,
            server={"drain_s": 1, "admin_token": ADMIN},
            agents={
                name: {"keys": [key], "models": ["*"]}
                for name, key in (
                    ("bot", KEY),
                    ("other", OTHER_KEY),
                    ("capped", CAPPED_KEY),
                    ("frozen", FROZEN_KEY),
                )
            },
            operators=[
                {"id": "dana@example.com", "groups": ["leads"], "roles": ["approver"], "token": TOKEN}
            ],
        )
        async with (
            ProxyProcess(folder, settings, policy=POLICY) as proxy,
            aiohttp.ClientSession() as http,
            aiohttp.ClientSession(proxy.origin, headers={"authorization": f"Bearer {TOKEN}"}) as people,
        ):
            yield House(proxy, upstream, http, people, folder / "policy.yaml")


def named(reply: Any) -> list[str]:
    calls = reply.body["choices"][0]["message"].get("tool_calls") or []
    return [call["function"]["name"] for call in calls]


async def test_an_action_that_waited_is_allowed_by_the_same_check(house: House) -> None:
    asked: dict[str, Any] = {"tool_call_id": "c1"}
    first = await house.check("refund", {"amount": 5}, "waits", wait_s=0, **asked)
    assert (first["decision"], first["rule"]) == ("pending", "approval-pending")
    assert first["expires_at"]
    again = await house.check("refund", {"amount": 5}, "waits", wait_s=0, **asked)
    assert (again["decision"], again["approval_id"]) == ("pending", first["approval_id"])
    await house.approve(first["approval_id"])
    both = [await house.check("refund", {"amount": 5.0}, "waits", wait_s=0, **asked) for _ in range(2)]
    for got in both:  # it counts once, and the grant is used once
        assert (got["decision"], got["rule"], got["approval_id"]) == (
            "allow",
            "approved",
            first["approval_id"],
        )
    claims = verify_receipt(both[1]["receipt"], await house.keys(), tool="refund", arguments={"amount": 5})
    assert (claims["approval"], claims["rule"]) == (first["approval_id"], "approved")
    new = await house.check("refund", {"amount": 5}, "waits", wait_s=0, tool_call_id="c2")
    assert (new["decision"], new["approval_id"] != first["approval_id"]) == ("pending", True)


async def test_a_check_that_is_held_goes_on_with_the_yes(house: House) -> None:
    held = asyncio.create_task(house.check("refund", {"amount": 6}, "held", wait_s=25, tool_call_id="c"))
    id_ = await house.waiting("held")
    await asyncio.sleep(0.3)
    assert not held.done()
    await house.approve(id_)
    got = await asyncio.wait_for(held, 10)
    assert (got["decision"], got["rule"], got["approval_id"]) == ("allow", "approved", id_)


async def test_a_call_that_a_person_released_has_a_receipt_that_says_so(house: House) -> None:
    held = asyncio.create_task(house.says("<refund>", "receipt"))
    id_ = await house.waiting("receipt")
    await house.approve(id_)
    reply = await asyncio.wait_for(held, 10)
    assert named(reply) == ["refund"]
    (call,) = reply.body["choices"][0]["message"]["tool_calls"]
    tool_call, _, token = reply.headers["x-receipts"].partition("=")
    given = await house.send("GET", f"/v1/runs/receipt/receipts/{call['id']}")
    for receipt in (token, given.body["receipt"]):
        claims = verify_receipt(receipt, await house.keys(), tool="refund", arguments={"amount": 5})
        assert (claims["approval"], claims["rule"], claims["tool_call_id"]) == (
            id_,
            "approved",
            unquote(tool_call),
        )


async def test_a_cap_by_day_counts_calls_and_actions_together(house: House) -> None:
    """Of a run each, so that nothing but the day adds them up."""
    for n in range(7):
        if n % 2:
            got = await house.check("note_write", {"n": n}, f"day-{n}", CAPPED_KEY)
            assert got["decision"] == "allow"
        else:
            assert named(await house.says("<note>", f"day-{n}", CAPPED_KEY)) == ["note_write"]
    got = await house.check("note_write", {"n": 9}, "day-9", CAPPED_KEY)
    assert (got["decision"], got["rule"]) == ("deny", "cap:day.writes")
    reply = await house.says("<note>", "day-10", CAPPED_KEY)
    assert named(reply) == []
    assert "'cap:day.writes'" in reply.body["choices"][0]["message"]["content"]
    assert (await house.check("note_write", {"n": 9}, "day-9", OTHER_KEY))["decision"] == "allow"


async def test_a_sub_run_takes_over_what_its_parent_has_read(house: House) -> None:
    reply = await house.says("look", "parent")
    message = reply.body["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "salaries"}
    before = await house.check("mail_send", {"to": "x"}, "early", parent_run_id="parent")
    assert before["decision"] == "allow"
    history = [{"role": "user", "content": "look"}, message, result]
    assert (await house.call("parent", body={"messages": history})).status == 200
    below = await house.check("mail_send", {"to": "x"}, "below", parent_run_id="parent")
    assert (below["decision"], below["rule"]) == ("deny", "exfil")
    reply = await house.says("<mail>", "below-2", x_parent_run_id="parent")
    assert named(reply) == []
    assert "'exfil'" in reply.body["choices"][0]["message"]["content"]
    deeper = await house.check("mail_send", {"to": "x"}, "deeper", parent_run_id="below-2")
    assert deeper["rule"] == "exfil"
    assert (await house.check("mail_send", {"to": "x"}, "aside"))["decision"] == "allow"


async def test_an_agent_that_the_policy_freezes_is_cut_off(house: House) -> None:
    body = ask("<slow>", stream=True)
    async with house.http.post(
        house.proxy.url, json=body, headers=headers(FROZEN_KEY, x_run_id="open")
    ) as stream:
        while b"one" not in await stream.content.readline():
            pass
        for n in range(2):
            got = await house.check("wipe", {"n": n}, "wipes", FROZEN_KEY)
            assert (got["decision"], got["rule"]) == ("deny", "prohibited")
        third = await house.send("POST", "/v1/actions/check", {"tool": "wipe"}, FROZEN_KEY, x_run_id="wipes")
        assert (third.status, third.error["code"]) == (403, "agent_frozen"), "it is an open call itself"
        async with asyncio.timeout(10):
            rest = await stream.content.read()
        assert b'"agent_frozen"' in rest
        call_id = stream.headers["x-call-id"]
    await house.proxy.settled()
    view = house.proxy.view(call_id)
    assert view.problem is not None
    assert (view.status, view.problem.kind) == (Status.CUT, "agent_frozen")
    for run in ("wipes", "open", "new"):
        answer = await house.call(run, FROZEN_KEY)
        assert (answer.status, answer.error["code"]) == (403, "agent_frozen")
        answer = await house.send("POST", "/v1/actions/check", {"tool": "hr_read"}, FROZEN_KEY, x_run_id=run)
        assert (answer.status, answer.error["code"]) == (403, "agent_frozen")
    assert (await house.call("wipes")).status == 200, "another agent's run of that name"


async def test_a_grant_binds_the_policy_that_asked(house: House) -> None:
    """Last here, since the file stays changed."""
    asked: dict[str, Any] = {"wait_s": 0, "tool_call_id": "c"}
    old = await house.check("refund", {"amount": 9}, "reload", **asked)
    await house.approve(old["approval_id"])
    new_file = house.file.with_suffix(".new")
    new_file.write_text(json.dumps(POLICY | {"policy": {"id": "combined", "version": 2}}))
    before = house.proxy.view((await house.check("hr_read", {}))["action_id"]).decisions[0].policy
    os.replace(new_file, house.file)

    async def changed() -> bool:
        view = house.proxy.view((await house.check("hr_read", {}))["action_id"])
        return view.decisions[0].policy != before

    await until(changed, "the new file is in force")
    got = await house.check("refund", {"amount": 9}, "reload", **asked)
    assert got["decision"] == "pending"
    assert got["approval_id"] != old["approval_id"]
    await house.approve(got["approval_id"])
    last = await house.check("refund", {"amount": 9}, "reload", **asked)
    assert (last["decision"], last["approval_id"]) == ("allow", got["approval_id"])
