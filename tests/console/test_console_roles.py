"""Every route of the console, asked for by everyone: only who has a role that it takes is let through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import create_engine

from llm_proxy.config.choices import Role
from llm_proxy.console.app import Console, Route
from tests.console.house import PEOPLE, House, house

pytestmark = pytest.mark.asyncio(loop_scope="module")


class _Bare:
    """As much of a worker as routes are declared with."""

    def __init__(self) -> None:
        self.engine = create_engine("sqlite://")
        self.services: Any = type("Services", (), {"now_us": staticmethod(lambda: 0)})
        server = type("Server", (), {"admin_token": None, "public_url": None})
        self.config: Any = type("Config", (), {"operators": (), "server": server})


def _routes() -> Iterator[Route]:
    worker: Any = _Bare()
    console = Console(worker)
    console.add_to(FastAPI())
    yield from console.routes


ROUTES = list(_routes())


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


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
async def test_each_role_sees_what_it_may(house: House, role: Role) -> None:
    for route in ROUTES:
        if route.path == "/console/signout":
            continue
        async with house.browser(PEOPLE[role]) as browser:
            path = _filled(route.path)
            answer = await (browser.get(path) if route.method == "GET" else browser.send(path))
        refused = answer.status == 403 and "lacks a role" in answer.text
        assert refused == (role not in route.roles), (route, answer.status)


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
