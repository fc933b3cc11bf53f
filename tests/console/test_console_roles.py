"""Every route of the console, asked for by everyone: only who has a role that it takes is let through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import create_engine

from llm_proxy.config.choices import Role
from llm_proxy.config.oidc import OidcConfig
from llm_proxy.console.app import Console, Route
from tests.console.house import PEOPLE, House, house

pytestmark = pytest.mark.asyncio(loop_scope="module")


class _Bare:
    """As much of a worker as routes are declared with."""

    def __init__(self) -> None:
        self.engine = create_engine("sqlite://")
        self.services: Any = type("Services", (), {"now_us": staticmethod(lambda: 0)})
        server = type("Server", (), {"admin_token": None, "public_url": "https://llm.example.com"})
        oidc = OidcConfig(issuer="https://login.example.com", client_id="console")
        self.config: Any = type("Config", (), {"operators": (), "server": server, "oidc": oidc})


def _routes() -> tuple[list[Route], set[tuple[str, str]]]:
    """Those that ask for a session, and all."""
    worker: Any = _Bare()
    console, app = Console(worker), FastAPI(openapi_url=None)
    console.add_to(app)
    found = [route for route in app.routes if isinstance(route, APIRoute)]
    return console.routes, {(method, route.path) for route in found for method in route.methods or ()}


ROUTES, EVERY = _routes()
OPEN = {
    ("GET", "/console/signin"),
    ("POST", "/console/signin"),
    ("GET", "/console/signin/oidc"),
    ("GET", "/console/signin/oidc/callback"),
    ("GET", "/console/static/{tag}/{name}"),
}
"""What takes no session: ways to sign in, and what a page is made of."""
_READ = {Role.SPEND_READER, Role.INVESTIGATOR, Role.ADMIN}
_CONTENT = {Role.INVESTIGATOR, Role.ADMIN}
_WAITS = {Role.APPROVER, Role.INVESTIGATOR, Role.ADMIN}
_DECIDES = {Role.APPROVER, Role.ADMIN}
_ANY = set(Role)
MAY = {
    ("GET", "/console"): _ANY,  # who only decides is led on to what waits
    ("GET", "/console/agents"): _READ,
    ("GET", "/console/agents/{agent_id:path}"): _READ,
    ("POST", "/console/agents/{agent_id:path}/freeze"): {Role.ADMIN},
    ("POST", "/console/agents/{agent_id:path}/thaw"): {Role.ADMIN},
    ("GET", "/console/runs"): _READ,
    ("GET", "/console/runs/{run_id:path}"): _CONTENT,
    ("GET", "/console/search"): _CONTENT,
    ("GET", "/console/approvals"): _WAITS,
    ("GET", "/console/approvals/live"): _WAITS,
    ("GET", "/console/approvals/{approval_id}"): _WAITS,
    ("POST", "/console/approvals/{approval_id}"): _DECIDES,
    ("GET", "/console/spend"): _READ,
    ("GET", "/console/spend/download"): _READ,
    ("GET", "/console/policy"): _READ,
    ("GET", "/console/policy/simulate"): _CONTENT,
    ("POST", "/console/policy/simulate"): _CONTENT,
    ("GET", "/console/routes"): _READ,
    ("GET", "/console/audit"): _CONTENT,
    ("GET", "/console/audit/verify"): _CONTENT,
    ("POST", "/console/signout"): _ANY,
    ("GET", "/console/{rest:path}"): _ANY,
    ("POST", "/console/{rest:path}"): _ANY,
}
"""Who may ask for what, said once more: another role in a page's own table is seen here."""


def _filled(path: str) -> str:
    """An address of the route: what it names need not exist, since the role is looked at first."""
    for part, value in (("{agent_id:path}", "bot"), ("{rest:path}", "nowhere")):
        path = path.replace(part, value)
    while "{" in path:
        start, end = path.index("{"), path.index("}")
        path = path[:start] + "none" + path[end + 1 :]
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="house")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("roles")) as built:
        yield built


async def test_every_other_route_asks_for_a_session() -> None:
    assert {(route.method, route.path) for route in ROUTES} == EVERY - OPEN
    assert EVERY >= OPEN
    assert MAY.keys() == EVERY - OPEN
    assert {(route.method, route.path): set(route.roles) for route in ROUTES} == MAY


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
async def test_each_role_sees_what_it_may(house: House, role: Role) -> None:
    for route in ROUTES:
        if route.path == "/console/signout":
            continue
        async with house.browser(PEOPLE[role]) as browser:
            path = _filled(route.path)
            answer = await (browser.get(path) if route.method == "GET" else browser.send(path))
        refused = answer.status == 403 and "lacks a role" in answer.text
        assert refused == (role not in MAY[route.method, route.path]), (route, answer.status)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_without_a_session_nothing_is_shown_or_done(house: House, route: Route) -> None:
    path = _filled(route.path)
    async with house.browser(None) as browser:
        if route.method == "GET":
            answer = await browser.get(path)
            assert answer.status == 303
            assert answer.headers["location"].startswith("/console/signin?to=")
            assert answer.text == ""
        else:
            assert (await browser.post(path, {"token": "0" * 64})).status == 401


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.method == "POST"], ids=lambda route: route.path
)
async def test_a_form_without_its_token_does_nothing(house: House, route: Route) -> None:
    async with house.browser() as browser:
        for form in ({}, {"token": "0" * 64}):
            assert (await browser.post(_filled(route.path), form)).status == 403
