"""The outermost ASGI app: model routes by one dictionary look-up, everything else by FastAPI."""

from __future__ import annotations

from collections.abc import Mapping

from llm_proxy.http.asgi import App, Receive, Scope, Send

MODELS = "/v1/models"


class Root:
    """Dispatches requests. The model routes go around FastAPI's routing, which costs more than they do."""

    def __init__(self, model_routes: Mapping[str, App], models: App, unserved: App, rest: App) -> None:
        self._model_routes = dict(model_routes)
        self._models = models
        self._unserved = unserved
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        method: str = scope["method"]
        endpoint = self._model_routes.get(path) if method == "POST" else None
        if endpoint is not None:
            await endpoint(scope, receive, send)
        elif method == "GET" and (path == MODELS or path.startswith(MODELS + "/")):
            await self._models(scope, receive, send)
        elif path.startswith("/v1/"):
            await self._unserved(scope, receive, send)
        else:
            await self._rest(scope, receive, send)
