"""The composition root: the ASGI application that a server runs."""

from __future__ import annotations

import gc
import os
import time

import structlog

from llm_proxy.admin.app import admin_app
from llm_proxy.config import Config, find_config, load_config
from llm_proxy.console.app import Console
from llm_proxy.http.actions_api import ActionsApi
from llm_proxy.http.asgi import App, Receive, Scope, Send
from llm_proxy.http.guarded import GuardedProtocol
from llm_proxy.http.model_api import ModelApi
from llm_proxy.http.root import Root
from llm_proxy.http.runs_api import RunsApi
from llm_proxy.http.well_known import key_set
from llm_proxy.logs import set_up_logs
from llm_proxy.wire.action import ACTION
from llm_proxy.wire.action import PATH as ACTION_PATH
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.worker import Worker

log = structlog.get_logger("llm_proxy")


class Application:
    """ASGI: lifespan starts and stops the worker, HTTP goes to the root."""

    def __init__(self, config: Config) -> None:
        self._worker = Worker(config)
        self._root: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http" and self._root is not None:
            await self._root(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._worker.start()
            console = Console(self._worker)
            self._root = _root(self._worker, console)
            _settle_garbage()
        except Exception as error:  # noqa: BLE001  whatever it was, the server must be told and end
            log.critical("the proxy can't start", error=f"{type(error).__name__}: {error}")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await console.close()
        await self._worker.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _settle_garbage() -> None:
    """What stands now lives as long as the process; a call leaves no cycles, so collections may be rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()  # `serve` starts without


def _root(worker: Worker, console: Console) -> Root:
    api = ModelApi(worker.services, created=int(time.time()))
    model_routes = {d.path: api.endpoint(d) for d in DIALECTS.values() if d.path}
    model_routes[ACTION_PATH] = ActionsApi(worker.services).endpoint(ACTION)
    operators = admin_app(worker)
    console.add_to(operators)
    return Root(
        model_routes,
        api.models,
        api.stored,
        RunsApi(worker.services),
        key_set(worker.services.receipts),
        api.other,
        operators,
    )


def create() -> Application:
    """What `llm-proxy serve` runs in each worker; the config is where $LLM_PROXY_CONFIG says."""
    config = load_config(find_config(None, os.environ), os.environ)
    set_up_logs(config.log.level.value)  # one of several processes begins anew
    GuardedProtocol.most = config.server.max_connections
    return Application(config)
