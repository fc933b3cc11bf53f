"""`POST /v1/actions/check` as a raw ASGI endpoint: a verdict on an action that no model proposed."""

from __future__ import annotations

from msgspec import structs

from llm_proxy.actions import Actions
from llm_proxy.exchange import Exchange
from llm_proxy.http.asgi import Receive, Scope
from llm_proxy.http.body import read_small
from llm_proxy.http.model_api import ModelApi
from llm_proxy.identity.headers import Headers
from llm_proxy.services import Services
from llm_proxy.wire.action import MAX_BODY, parse


class ActionsApi(ModelApi):
    """Identifies, reads and records as for a model's call; an action goes its own way from there."""

    def __init__(self, services: Services) -> None:
        super().__init__(services, created=0)
        self._pipeline = Actions(services)

    async def _prepare(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        headers: Headers = dict(scope["headers"])
        exchange.caller = await self._services.access.identify(headers)
        self._identify_run(exchange, headers)
        exchange.body = await read_small(receive, headers, MAX_BODY, self._services.bodies)
        exchange.request = request = parse(exchange.body)
        parent = request.asked.parent_run_id
        if parent and not exchange.hints.parent_run_id:
            exchange.hints = structs.replace(exchange.hints, parent_run_id=parent)
            exchange.parent_run_id = parent
        self._settle_run(exchange, request)
