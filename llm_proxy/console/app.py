"""The console's routes, each with the roles that it takes."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI, Request, Response

from llm_proxy.admin.door import APPROVAL_READERS, READERS, operators
from llm_proxy.config.choices import Role
from llm_proxy.console.agents import AgentPages
from llm_proxy.console.approvals import ApprovalPages
from llm_proxy.console.assets import PREFIX, Asset, Assets
from llm_proxy.console.audit import AuditPages
from llm_proxy.console.overview import OverviewPages
from llm_proxy.console.pages import Pages
from llm_proxy.console.policy import PolicyPages
from llm_proxy.console.runs import RunPages
from llm_proxy.console.security import HEADERS
from llm_proxy.console.sessions import Credential, Sessions
from llm_proxy.console.signin import SignIn
from llm_proxy.console.spend import SpendPages
from llm_proxy.console.targets import TargetPages
from llm_proxy.console.visit import SIGN_IN, Guard, Page, Refused, Visit
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
        known = tuple((key, Credential(operator, key.sha256)) for key, operator in operators(worker.config))
        by_id = {credential.operator.id: credential for _, credential in known}
        now_us = worker.services.now_us
        self.sessions = Sessions(worker.engine, by_id, now_us)
        self.guard = Guard(self.sessions, self.pages)
        public = worker.config.server.public_url
        self._signing = SignIn(known, self.sessions, self.pages, self.guard, now_us, public)
        self.routes: list[Route] = []

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route(SIGN_IN, self._signing.ask, methods=["GET"], include_in_schema=False)
        app.add_api_route(SIGN_IN, self._signing.take, methods=["POST"], include_in_schema=False)
        app.add_api_route(PREFIX + "/{tag}/{name}", self._asset, methods=["GET"], include_in_schema=False)

        def add(method: str, path: str, page: Page, roles: frozenset[Role]) -> None:
            self._add(app, method, path, page, roles)

        add("POST", "/console/signout", self._signing.leave, ANYBODY)
        worker = self._worker
        for pages in (
            OverviewPages(worker),
            AgentPages(worker),
            RunPages(worker),
            ApprovalPages(worker, self.sessions),
            SpendPages(worker),
            PolicyPages(worker),
            TargetPages(worker),
            AuditPages(worker, self.pages),
        ):
            pages.add_to(add)
        add("GET", "/console/{rest:path}", _nowhere, ANYBODY)
        add("POST", "/console/{rest:path}", _nowhere, ANYBODY)

    def _add(self, app: FastAPI, method: str, path: str, page: Page, roles: frozenset[Role]) -> None:
        endpoint = self.guard.guarded(page, roles)
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


async def _nowhere(_: Visit) -> Response:
    raise Refused(404, "Not found", "No page of the console is at this address.")
