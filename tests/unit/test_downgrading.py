"""A call that no other model can be asked is refused as if none were named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from budgets import Limit, LimitBook, OnExceed, Refused, Scope, Subject, Unit, window_named
from llm_proxy import downgrading
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from tests.stores import NOW, body_of

LIMIT = Limit(
    "of-m", Scope(model="m"), window_named("day"), {Unit.REQUESTS: 1}, OnExceed.DOWNGRADE, downgrade="small"
)


async def test_a_call_that_cannot_step_down_is_refused_under_the_limits_it_was_bound_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange = Exchange("call", NOW, OPENAI_CHAT, clock0=0.0)
    exchange.request = OPENAI_CHAT.parse(body_of())
    bounds = exchange.bounds = LimitBook([LIMIT]).bounds(Subject("bot", model="m"), NOW)
    refused = Refused("of-m", bounds[0].key, Unit.REQUESTS, 1, 1, 0, 1, bounds[0].resets_us)

    class Admission:
        async def hold(self, *_: object) -> Refused:
            return refused

        def exceeded(self, *_: object) -> ProxyError:
            return ProxyError(Kind.BUDGET_EXCEEDED, "of-m has no room")

    async def readied(_: object, exchange: Exchange, rules: object) -> Any:
        assert exchange.model == "small"
        exchange.bounds = ()
        raise ProxyError(Kind.UNSUPPORTED_FEATURE, "small can't be asked this")

    monkeypatch.setattr(downgrading, "readied", readied)
    services: Any = SimpleNamespace(admission=Admission())
    route: Any = None
    with pytest.raises(ProxyError, match="of-m has no room"):
        await downgrading.admit(services, exchange, route, None)
    assert (exchange.model, exchange.downgraded) == ("m", None)
    assert exchange.bounds == bounds, "what is told of the refusal names the limit's window by it"
