"""The outermost ASGI app: model routes by one dictionary look-up, everything else by FastAPI."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llm_proxy.http.asgi import App, Receive, Scope, Send, respond
from llm_proxy.http.well_known import JWKS

MODELS = "/v1/models"
RUNS = "/v1/runs"
ACTIONS = "/v1/actions/"
"""What stands below it and isn't served is no path to pass on."""
_STORED = re.compile(r"/v1/responses/resp_[A-Za-z0-9_-]{1,200}")
"""One stored response: it holds what a model said, so it's judged like any reply."""


class Root:
    """Dispatches requests. The model routes go around FastAPI's routing, which costs more than they do."""

    def __init__(
        self,
        model_routes: Mapping[str, App],
        models: App,
        stored: App,
        runs: App,
        keys: App,
        other: App,
        rest: App,
    ) -> None:
        self._model_routes = dict(model_routes)
        self._models = models
        self._stored = stored
        self._runs = runs
        self._keys = keys
        self._other = other
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        method: str = scope["method"]
        # A dialect's path that is spelled with escapes is no path of ours: `other` refuses it.
        spelt = b"%" not in scope.get("raw_path", b"")
        endpoint = self._model_routes.get(path) if method == "POST" and spelt else None
        if endpoint is not None:
            await endpoint(scope, receive, send)
        elif method == "GET" and (path == MODELS or path.startswith(MODELS + "/")):
            await self._models(scope, receive, send)
        elif method == "GET" and _STORED.fullmatch(path):
            await self._stored(scope, receive, send)
        elif path == RUNS or path.startswith((RUNS + "/", ACTIONS)):
            await self._runs(scope, receive, send)
        elif path == JWKS and method in ("GET", "HEAD"):
            await self._keys(scope, receive, send)
        elif path == "/" and method in ("GET", "HEAD"):
            # Agents' SDKs probe the base URL before they use it.
            await respond(send, 200, [(b"content-type", b"application/json")], b'{"name":"llm-proxy"}')
        elif path.startswith("/v1/"):
            await self._other(scope, receive, send)
        else:
            await self._rest(scope, receive, send)
