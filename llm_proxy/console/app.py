"""The console's routes, each with the roles that it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response

from llm_proxy.admin.door import APPROVAL_READERS, READERS
from llm_proxy.config.choices import Role
from llm_proxy.console.agents import AgentPages
from llm_proxy.console.approvals import ApprovalPages
from llm_proxy.console.assets import PREFIX, Asset, Assets
from llm_proxy.console.audit import AuditPages
from llm_proxy.console.entry import HOME, Entry
from llm_proxy.console.later import Later
from llm_proxy.console.oidc import BACK, BEGIN, OidcSignIn
from llm_proxy.console.overview import OverviewPages
from llm_proxy.console.pages import Pages
from llm_proxy.console.people import People
from llm_proxy.console.policy import PolicyPages
from llm_proxy.console.runs import RunPages
from llm_proxy.console.security import HEADERS
from llm_proxy.console.sessions import Sessions
from llm_proxy.console.signin import SignIn
from llm_proxy.console.spend import SpendPages
from llm_proxy.console.targets import TargetPages
from llm_proxy.console.visit import SIGN_IN, Guard, Page, Refused, Visit, go
from llm_proxy.worker import Worker

ANYBODY = READERS | APPROVAL_READERS
_KEPT = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    roles: frozenset[Role]


class Console:
    """Everything below `/console`. `routes` are those that ask for a session."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._assets = Assets()
        self.pages = Pages(self._assets)
        config, now_us = worker.config, worker.services.now_us
        people = People(config)
        self.sessions = Sessions(worker.engine, people, now_us)
        self.guard = Guard(self.sessions, self.pages)
        entry = Entry(self.sessions, config.server.public_url)
        self._oidc = (
            OidcSignIn(config.oidc, people, entry, self.pages, self.guard, now_us, time.monotonic)
            if config.oidc.on
            else None
        )
        self._signing = SignIn(people, entry, self.pages, self.guard, self._oidc)
        self._later = Later()
        self.routes: list[Route] = []

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route(SIGN_IN, self._signing.ask, methods=["GET"], include_in_schema=False)
        app.add_api_route(SIGN_IN, self._signing.take, methods=["POST"], include_in_schema=False)
        if self._oidc is not None:
            app.add_api_route(BEGIN, self._oidc.begin, methods=["GET"], include_in_schema=False)
            app.add_api_route(BACK, self._oidc.come_back, methods=["GET"], include_in_schema=False)
        app.add_api_route(PREFIX + "/{tag}/{name}", self._asset, methods=["GET"], include_in_schema=False)

        def add(method: str, path: str, page: Page, roles: frozenset[Role]) -> None:
            self._add(app, method, path, page, roles)

        add("POST", "/console/signout", self._signing.leave, ANYBODY)
        worker = self._worker
        for pages in (
            OverviewPages(worker, self._later),
            AgentPages(worker, self._later),
            RunPages(worker, self._later),
            ApprovalPages(worker, self.sessions),
            SpendPages(worker, self._later),
            PolicyPages(worker),
            TargetPages(worker),
            AuditPages(worker, self.pages),
        ):
            pages.add_to(add)
        add("GET", "/console/{rest:path}", _nowhere, ANYBODY)
        add("POST", "/console/{rest:path}", _nowhere, ANYBODY)

    async def close(self) -> None:
        """Before the worker stops: nothing reads its store any more."""
        await self._later.close()

    def _add(self, app: FastAPI, method: str, path: str, page: Page, roles: frozenset[Role]) -> None:
        endpoint = self.guard.guarded(self._later.changing(page) if method == "POST" else page, roles)
        app.add_api_route(path, endpoint, methods=[method], include_in_schema=False, response_model=None)
        self.routes.append(Route(method, path, roles))

    def _asset(self, request: Request, tag: str, name: str) -> Response:
        found = self._assets.find(tag, name)
        if found is None:
            return Response(status_code=404, headers=HEADERS)
        return _sent(found, packed="gzip" in request.headers.get("accept-encoding", ""))


def _sent(asset: Asset, *, packed: bool) -> Response:
    headers = HEADERS | {"cache-control": _KEPT, "vary": "accept-encoding"}
    if packed:
        headers["content-encoding"] = "gzip"
    return Response(asset.packed if packed else asset.content, 200, headers, asset.media_type)


async def _nowhere(visit: Visit) -> Response:
    if visit.request.method == "GET" and visit.request.url.path == HOME + "/":
        return go(HOME)
    raise Refused(404, "Not found", "No page of the console is at this address.")
