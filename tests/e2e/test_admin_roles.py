"""Who may do what under /admin: every path of the OpenAPI document, by each role, by agents and strangers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio

from tests.proxy import KEY, ProxyProcess, config

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = "an-admin-token-0123456789"
ROLES = ("admin", "approver", "investigator", "spend-reader")
TOKENS = {role: f"{role}-token-0123456789" for role in ROLES}
CHANGES = {
    "POST /admin/keys": {"admin"},
    "POST /admin/keys/rotate": {"admin"},
    "POST /admin/keys/{key_id}/revoke": {"admin"},
    "POST /admin/agents/{agent_id}/freeze": {"admin"},
    "POST /admin/agents/{agent_id}/thaw": {"admin"},
}
"""What changes who may call, and the roles that may do so."""


@dataclass
class House:
    proxy: ProxyProcess
    http: aiohttp.ClientSession
    paths: dict[str, set[str]]
    """The roles of `METHOD path`, as the document says them."""

    async def ask(self, path: str, token: str | None) -> tuple[int, str]:
        """Status and error code of a request about what isn't there, with a body that is none."""
        method, _, at = path.partition(" ")
        at = re.sub(r"\{[^}]*\}", "nothing-here", at)
        told = {"authorization": f"Bearer {token}"} if token else {}
        data = b"no body" if method == "POST" else None
        async with self.http.request(method, self.proxy.origin + at, headers=told, data=data) as reply:
            answer = await reply.json(content_type=None) if reply.status >= 400 else None  # or lines of it
            error = answer.get("error", {}) if isinstance(answer, dict) else {}
            return reply.status, str(error.get("code", ""))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    told = config(
        "http://127.0.0.1:9/v1",
        server={"admin_token": ADMIN, "drain_s": 1},
        operators=[{"id": f"{r}@example.com", "roles": [r], "token": token} for r, token in TOKENS.items()],
    )
    async with (
        ProxyProcess(tmp_path_factory.mktemp("roles"), told) as proxy,
        aiohttp.ClientSession() as http,
        http.get(proxy.origin + "/admin/openapi.json") as reply,
    ):
        document = await reply.json()
        paths = {
            f"{method.upper()} {path}": set(operation["x-roles"])
            for path, operations in document["paths"].items()
            if path.startswith("/admin")
            for method, operation in operations.items()
        }
        yield House(proxy, http, paths)


async def test_every_path_says_who_may_use_it(house: House) -> None:
    assert all(roles and roles <= set(ROLES) and "admin" in roles for roles in house.paths.values())
    said = {path.replace(":path", ""): roles for path, roles in house.paths.items()}
    assert {path: said[path] for path in CHANGES} == CHANGES
    assert len(house.paths) >= 17


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_may_do_what_the_document_says_and_no_more(house: House, role: str) -> None:
    for path, roles in house.paths.items():
        status, code = await house.ask(path, TOKENS[role])
        if role in roles:
            assert status not in (401, 403, 405), (path, status, code)
        else:
            assert (status, code) == (403, "forbidden_role"), path


async def test_the_admin_token_may_do_all_and_nobody_else_learns_anything(house: House) -> None:
    for path in house.paths:
        assert (await house.ask(path, ADMIN))[0] not in (401, 403), path
        assert await house.ask(path, KEY) == (403, "forbidden_role"), path
        assert await house.ask(path, None) == (401, "invalid_credential"), path
        assert await house.ask(path, "a-guess") == (401, "invalid_credential"), path
