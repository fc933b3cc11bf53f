"""/admin on a real proxy: who may see and do what, what is answered, and that a revoked key stops working."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import KEY, ProxyProcess, config, until

ADMIN = "an-admin-token-0123456789"
TOKENS = {
    "admin": ADMIN,
    "second-admin": "second-admin-token-012345",
    "investigator": "investigator-token-012345",
    "spend-reader": "spend-reader-token-012345",
    "approver": "an-approver-token-0123456",
}
OPERATORS = [
    {"id": f"{name}@example.com", "roles": [name.removeprefix("second-")], "token": token}
    for name, token in TOKENS.items()
    if name != "admin"
]
LISTINGS = (
    "/admin/agents",
    "/admin/agents/bot",
    "/admin/keys",
    "/admin/runs",
    "/admin/calls",
    "/admin/spend",
    "/admin/budgets",
    "/admin/reconcile",
    "/admin/refusals",
    "/admin/routes",
    "/admin/routes/m/explain",
)
SCRIPT = "default: {turns: [{reasoning: I think., text: Hello.}]}"


class AdminClient:
    """Requests to one proxy's /admin; every answer is JSON."""

    def __init__(self, http: aiohttp.ClientSession, proxy: ProxyProcess) -> None:
        self.proxy = proxy
        self._http = http

    async def send(
        self, method: str, path: str, token: str | None = ADMIN, body: bytes | None = None
    ) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with self._http.request(method, self.proxy.origin + path, headers=headers, data=body) as reply:
            return reply.status, await reply.json()

    async def get(self, path: str, token: str | None = ADMIN) -> tuple[int, Any]:
        return await self.send("GET", path, token)

    async def issue(self, token: str | None = ADMIN, **wish: object) -> tuple[int, Any]:
        return await self.send("POST", "/admin/keys", token, json.dumps(wish).encode())


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[AdminClient]:
    """A proxy with every role, and one call of run `r/1` (the id has a slash) behind it."""
    async with running(parse_script(SCRIPT)) as upstream:
        told = config(
            upstream.base_url, server={"admin_token": ADMIN, "drain_s": 1}, operators=OPERATORS, budgets=[]
        )
        async with ProxyProcess(tmp_path, told) as proxy, aiohttp.ClientSession() as http:
            async with proxy.sdk() as sdk:
                await sdk.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "hi"}], extra_headers={"x-run-id": "r/1"}
                )
            yield AdminClient(http, proxy)


async def test_each_role_sees_what_it_may_and_no_more(admin: AdminClient) -> None:
    call_id = admin.proxy.views()[0].id
    content = ("/admin/runs/r/1", f"/admin/calls/{call_id}")
    may = {
        "admin": (*LISTINGS, *content),
        "second-admin": (*LISTINGS, *content),
        "investigator": (*LISTINGS, *content),
        "spend-reader": LISTINGS,
        "approver": (),
    }
    for name, token in TOKENS.items():
        for path in (*LISTINGS, *content):
            status, answer = await admin.get(path, token)
            assert status == (200 if path in may[name] else 403), (name, path, answer)
            if status == 403:
                assert answer["error"]["code"] == "forbidden_role"
        status, answer = await admin.issue(token, agent_id="bot")
        assert status == (201 if "admin" in name else 403), (name, answer)


async def test_strangers_and_agents_get_nothing_and_learn_nothing(admin: AdminClient) -> None:
    _, issued = await admin.issue(agent_id="bot")
    wanted = [
        (None, 401, "invalid_credential"),
        ("a-guess", 401, "invalid_credential"),
        (KEY, 403, "forbidden_role"),
        (issued["key"], 403, "forbidden_role"),
    ]
    for path in (*LISTINGS, "/admin/runs/r/1", "/admin/runs/nope", "/admin/runs?limit=0"):
        for token, status, code in wanted:
            answer = await admin.get(path, token)
            assert (answer[0], answer[1]["error"]["code"]) == (status, code), (path, token)
            assert set(answer[1]["error"]) == {"code", "message"}
    for body in (b"", b"not json", b'{"agent_id": "nobody"}'):
        status, answer = await admin.send("POST", "/admin/keys", "a-guess", body)
        assert (status, answer["error"]["code"]) == (401, "invalid_credential")
    assert "a-guess" not in admin.proxy.log()


async def test_health_and_metrics_stay_open(admin: AdminClient) -> None:
    for path in ("/health/live", "/health/ready"):
        assert (await admin.get(path, None))[0] == 200
    status, document = await admin.get("/admin/openapi.json", None)
    assert status == 200
    assert document["paths"]["/admin/keys"]["post"]["x-roles"] == ["admin"]


async def test_every_reference_of_the_openapi_document_leads_somewhere(admin: AdminClient) -> None:
    _, document = await admin.get("/admin/openapi.json", None)
    named = {text.partition('"')[0] for text in json.dumps(document).split('"#/components/schemas/')[1:]}
    assert {"CallShown", "KeyIssued", "Error"} <= named
    assert named <= set(document["components"]["schemas"])


async def test_without_any_operator_admin_is_closed(tmp_path: Path) -> None:
    async with (
        ProxyProcess(tmp_path, config("http://127.0.0.1:9/v1")) as proxy,
        aiohttp.ClientSession() as http,
    ):
        client = AdminClient(http, proxy)
        for token in (None, "any", KEY):
            status, answer = await client.get("/admin/calls", token)
            assert (status, answer["error"]["code"]) == (403, "forbidden_role")
            assert "server.admin_token" in answer["error"]["message"]


async def test_a_key_works_from_its_issue_to_its_revocation(admin: AdminClient) -> None:
    status, issued = await admin.issue(TOKENS["second-admin"], agent_id="bot", ttl="1h", run_id="bound")
    assert status == 201
    assert issued["expires_us"] - issued["created_us"] == 3600 * 1_000_000
    async with admin.proxy.sdk(issued["key"]) as sdk:
        reply = await sdk.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": "hi"}], extra_headers={"x-run-id": "another"}
        )
        assert reply.headers["x-run-id"] == "bound"

        status, revoked = await admin.send("POST", f"/admin/keys/{issued['id']}/revoke")
        assert (status, revoked["status"]) == (200, "revoked")
        assert "key" not in revoked

        async def refused() -> bool:
            try:
                await sdk.models.list()
            except openai.AuthenticationError:
                return True
            return False

        await until(refused, "the revoked key is refused", 5)
    status, again = await admin.send("POST", f"/admin/keys/{issued['id']}/revoke")
    assert (status, again["revoked_us"]) == (200, revoked["revoked_us"])


async def test_what_is_wrong_with_a_wish_is_said(admin: AdminClient) -> None:
    cases: list[tuple[bytes, int, str, str]] = [
        (b'{"agent_id": "bto"}', 404, "not_found", "did you mean 'bot'?"),
        (b'{"agent_id": "bot", "ttl": "soon"}', 400, "invalid_request", "ttl:"),
        (b'{"agent_id": "bot", "run_id": "a\\u0007"}', 400, "invalid_request", "don't print"),
        (b'{"agent_id": "bot", "for_ever": true}', 400, "invalid_request", "for_ever"),
        (b'{"agent_id": 7}', 400, "invalid_request", "agent_id"),
        (b"[]", 400, "invalid_request", "The body"),
        (b"", 400, "invalid_request", "The body"),
        (b" " * 70_000, 413, "body_too_large", "over 65536 bytes"),
    ]
    for body, status, code, said in cases:
        answer = await admin.send("POST", "/admin/keys", ADMIN, body)
        assert (answer[0], answer[1]["error"]["code"]) == (status, code), body[:60]
        assert said in answer[1]["error"]["message"]
    assert [key["source"] for key in (await admin.get("/admin/keys"))[1]] == ["config"]


async def test_what_is_not_there_or_not_asked_rightly(admin: AdminClient) -> None:
    cases = [
        ("/admin/runs/nope", 404, "not_found"),
        ("/admin/runs/r/1?agent=other", 404, "not_found"),
        ("/admin/calls/nope", 404, "not_found"),
        ("/admin/agents/bto", 404, "not_found"),
        ("/admin/routes/nope/explain", 404, "not_found"),
        ("/admin/routes?model=nope", 404, "not_found"),
        ("/admin/routes/m/explain?tokens=-1", 400, "invalid_request"),
        ("/admin/routes/m/explain?run=nobodys", 404, "not_found"),
        ("/admin/nothing", 404, "not_found"),
        ("/elsewhere", 404, "not_found"),
        ("/admin/calls?limit=0", 400, "invalid_request"),
        ("/admin/calls?limit=1001", 400, "invalid_request"),
        ("/admin/calls?status=odd", 400, "invalid_request"),
        ("/admin/calls/a%00b", 400, "invalid_request"),
        (f"/admin/runs/{'x' * 300}", 400, "invalid_request"),
        ("/admin/runs?agent=a%07", 400, "invalid_request"),
    ]
    for path, status, code in cases:
        answer = await admin.get(path)
        assert (answer[0], answer[1]["error"]["code"]) == (status, code), path


async def test_every_listing_is_the_command_lines_json(admin: AdminClient, tmp_path: Path) -> None:
    await admin.issue(agent_id="bot")
    await admin.get("/v1/models", "not-a-key")
    call_id = admin.proxy.views()[0].id
    twins = {
        "agents list": "/admin/agents",
        "agents show bot": "/admin/agents/bot",
        "keys list": "/admin/keys",
        "runs list": "/admin/runs",
        "runs show r/1": "/admin/runs/r/1",
        "calls list": "/admin/calls",
        f"calls show {call_id}": f"/admin/calls/{call_id}",
        "refusals": "/admin/refusals",
    }
    for command, path in twins.items():
        status, told = await admin.get(path)
        asked = [*command.split(), "--json", "--config", str(tmp_path / "proxy.yaml")]
        shown = await asyncio.to_thread(CliRunner().invoke, app, asked)
        assert shown.exit_code == 0, shown.output
        assert (status, told) == (200, json.loads(shown.stdout)), command
    assert (await admin.get("/admin/refusals"))[1][0]["reason"] == "unknown"
    assert (await admin.get("/admin/calls?status=refused"))[1] == []
    assert len((await admin.get("/admin/calls?agent=bot&run=r/1&limit=1"))[1]) == 1
