"""Admits a call, if need be for a model that a limit names in place of the one that was asked for."""

from __future__ import annotations

from budgets import OnExceed, Refused
from llm_proxy.admission import Admitted
from llm_proxy.continuing import may_continue
from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Downgrade, Exchange
from llm_proxy.judge import Rules
from llm_proxy.measuring import ways_of
from llm_proxy.outgoing import read_prompt, spoken
from llm_proxy.quote import counts_tokens
from llm_proxy.reactions.alerts import bound_of
from llm_proxy.resolving import go_on, route_of, sized, stepped_down
from llm_proxy.services import Services
from routing.targets import Resolved

MOST_HOPS = 3
"""How many limits may each name another model for one call; the next one's refusal stands."""


async def readied(services: Services, exchange: Exchange, rules: Rules | None) -> Resolved:
    """The route of the call, which is bound, offered its tools, translated as far as need be, and counted.

    Raises `ProxyError` for a model that can't be asked this, and for tools that it has to use and may not.
    """
    route = stepped_down(services, exchange) if exchange.downgraded else route_of(services, exchange)
    services.admission.bind(exchange)
    request = exchange.request
    assert request is not None
    if request.previous:
        await go_on(services, exchange, request.previous, route)
    services.offering.look(exchange, rules)
    first = services.upstreams.endpoints[route.chain[0].targets[0].key]
    if not exchange.answered_here and spoken(exchange.dialect, first) is not exchange.dialect:
        read_prompt(exchange)  # what can't be translated is refused before anything is held
    exchange.drains = route.route.drains
    exchange.continues = may_continue(exchange, route, strict=services.composer.strict)
    exchange.intake = await services.reader.read(
        request,
        exchange.dialect,
        count=counts_tokens(exchange.bounds) or sized(exchange, route),
        ways=ways_of(route),
        addressed=exchange.addressed,
    )
    await services.recorder.request(exchange, rules)
    return route


async def admit(
    services: Services, exchange: Exchange, route: Resolved, rules: Rules | None
) -> tuple[Resolved, Admitted]:
    """The call, admitted, and the route that it is admitted to.

    Raises `ProxyError(budget_exceeded)` of the first limit without room that names no other model, or none
    that can be asked this.
    """
    outcome = await services.admission.hold(exchange, route, rules)
    while isinstance(outcome, Refused):
        before = exchange.downgraded, exchange.bounds
        if not _steps_down(exchange, outcome):
            raise services.admission.exceeded(outcome, exchange)
        try:
            route = await readied(services, exchange, rules)
        except ProxyError as error:
            exchange.downgraded, exchange.bounds = before
            raise services.admission.exceeded(outcome, exchange) from error
        services.alerts.count_downgrade(outcome.limit_id)
        outcome = await services.admission.hold(exchange, route, rules)
    return route, outcome


def _steps_down(exchange: Exchange, refused: Refused) -> bool:
    """Whether the limit that refused names another model, which the call is then for.

    Not where the body names no model, or one that only this model can stand in for: an embedding made by
    another model is worth nothing beside those there are, and what a server keeps is on that server.
    """
    bound = bound_of(refused, exchange.bounds)
    if bound is None or bound.limit.on_exceed is not OnExceed.DOWNGRADE:
        return False
    before = exchange.downgraded.limits if exchange.downgraded is not None else ()
    dialect = exchange.dialect
    movable = dialect.generates and not dialect.raw and not exchange.unnamed and not exchange.fetches
    if not movable or len(before) >= MOST_HOPS:
        return False
    assert exchange.request is not None
    exchange.downgraded = Downgrade(
        (*before, refused.limit_id), exchange.request.model, bound.limit.downgrade
    )
    return True
