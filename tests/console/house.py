"""A proxy with operators of every role, and people who are signed in to its console."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from llm_proxy.config.choices import Role
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, headers

ADMIN = "an-admin-token-0123456789"
SCRIPT = """
default:
  turns:
    - {when: {last_user_contains: <refund>}, reasoning: The customer asks for it., text: Let me see.,
       tool_calls: [{name: refund, arguments: {id: "9"}}]}
    - {text: Done.}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "p", "version": 1},
    "on_deny": "replace",
    "tools": {"refund": {"effect": "write", "tier": "prohibited"}},
}
PEOPLE = {role: f"{role.value}-token-0123456789" for role in Role}
_FORM = re.compile(r'name="token" value="([0-9a-f]{64})"')


@dataclass(frozen=True)
class Seen:
    status: int
    text: str
    headers: Mapping[str, str]


class Browser:
    """A person's cookies, and what a browser says of where a form comes from."""

    def __init__(self, proxy: ProxyProcess) -> None:
        self.origin = proxy.origin
        self._http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def close(self) -> None:
        await self._http.close()

    async def get(self, path: str, **told: str) -> Seen:
        """Without the text of a stream of events, which has no end. A page that comes later is waited for."""
        seen = await self._get(path, told)
        while seen.status == 202:
            assert seen.headers["refresh"] == "1"
            await asyncio.sleep(0.2)
            seen = await self._get(path, told)
        return seen

    async def _get(self, path: str, told: Mapping[str, str]) -> Seen:
        async with self._http.get(self.origin + path, headers=told, allow_redirects=False) as reply:
            endless = reply.content_type == "text/event-stream"
            return Seen(reply.status, "" if endless else (await reply.read()).decode(), reply.headers)

    def listen(self, path: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A stream of events, for as long as the answer isn't closed."""
        return self._http.get(self.origin + path, allow_redirects=False)

    async def post(self, path: str, form: Mapping[str, str], **told: str) -> Seen:
        """`told` replaces headers; by default the form comes from the console itself."""
        sent = {"sec-fetch-site": "same-origin"} | {k.replace("_", "-"): v for k, v in told.items()}
        async with self._http.post(
            self.origin + path, data=form, headers=sent, allow_redirects=False
        ) as reply:
            return Seen(reply.status, (await reply.read()).decode(), reply.headers)

    async def sign_in(self, token: str, to: str = "") -> Seen:
        return await self.post("/console/signin", {"credential": token, "to": to})

    async def form_token(self) -> str:
        """Of a page that every role is shown."""
        found = _FORM.search((await self.get("/console/nowhere")).text)
        assert found is not None
        return found[1]

    async def send(self, path: str, **fields: str) -> Seen:
        """A form of a page of this session."""
        return await self.post(path, fields | {"token": await self.form_token()})

    @property
    def secret(self) -> str:
        return next(iter(self._http.cookie_jar)).value


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    folder: Path
    """Of the proxy's configuration."""

    @asynccontextmanager
    async def browser(self, token: str | None = ADMIN) -> AsyncGenerator[Browser]:
        """Signed in with `token`, where one is given."""
        browser = Browser(self.proxy)
        try:
            if token is not None:
                assert (await browser.sign_in(token)).status == 303
            yield browser
        finally:
            await browser.close()

    async def call(self, text: str, run: str, key: str = KEY) -> None:
        async with (
            aiohttp.ClientSession() as http,
            http.post(self.proxy.url, json=ask(text), headers=headers(key, x_run_id=run)) as reply,
        ):
            assert reply.status == 200, await reply.text()


@asynccontextmanager
async def house(
    folder: Path,
    *,
    people: Mapping[Role, str] = PEOPLE,
    operators: Sequence[Mapping[str, Any]] = (),
    policy: Mapping[str, Any] = POLICY,
    server: Mapping[str, Any] | None = None,
    **more: Any,
) -> AsyncGenerator[House]:
    """`people` are operators of one role each, with their tokens; `operators` are further ones."""
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(
            upstream.base_url,
            server={"admin_token": ADMIN, "drain_s": 1} | dict(server or {}),
            prices={"m": {"input_cost_per_token": 1e-3, "output_cost_per_token": 2e-3}},
            budgets=[{"id": "day", "agent": "*", "window": "day", "usd": 50, "requests": 1000}],
            agents={
                "bot": {"keys": [KEY], "models": ["*"], "owner": "support@example.com", "team": "support"},
                "other": {"keys": [OTHER_KEY], "models": ["*"]},
            },
            operators=[
                {"id": f"{role.value}@example.com", "roles": [role.value], "token": token}
                for role, token in people.items()
            ]
            + list(operators),
            **more,
        )
        async with ProxyProcess(folder, settings, policy=policy) as proxy:
            yield House(proxy, folder)
