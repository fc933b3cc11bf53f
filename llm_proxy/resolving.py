"""Where a call may go: the targets of its model that can be asked this, and the plan through them."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.outgoing import keeps, spoken, unsayable
from llm_proxy.services import Services
from llm_proxy.wire.anthropic_messages import COUNT_TOKENS
from llm_proxy.wire.openai_responses.continued import continued
from routing.fleet import Demand
from routing.plan import Plan
from routing.targets import Resolved, Target


def route_of(services: Services, exchange: Exchange) -> Resolved:
    """Raises `ProxyError` for a model that isn't there, isn't the agent's, or can't be asked this."""
    caller, request = exchange.caller, exchange.request
    assert caller is not None
    assert request is not None
    route = services.routes.resolve(request.model)
    if route is None:
        raise ProxyError(
            Kind.MODEL_NOT_FOUND,
            f"No model {request.model[:200]!r} is configured. `GET /v1/models` lists those you may use.",
            param="model",
            retryable=False,
        )
    if request.model not in caller.agent.models and not exchange.fetches:  # that reply is the agent's own
        raise ProxyError(
            Kind.MODEL_NOT_ALLOWED,
            f"Agent {caller.agent.id!r} may not use model {request.model!r}. "
            "`GET /v1/models` lists those it may; an operator adds others under the agent's `models`.",
            param="model",
            retryable=False,
        )
    return _able(services, exchange, route)


def stepped_down(services: Services, exchange: Exchange) -> Resolved:
    """The route of the model that a limit put in place of the one asked for.

    The operator's word is enough: the agent need not list it. Raises `ProxyError` where it can't be asked.
    """
    route = services.routes.resolve(exchange.model)
    assert route is not None, "the configuration was checked to have it"
    exchange.answered_here, exchange.prompt = False, None
    return _able(services, exchange, route)


def _able(services: Services, exchange: Exchange, route: Resolved) -> Resolved:
    """The route without the targets that can't be asked this: in no dialect, or they don't keep it."""
    endpoints, dialect = services.upstreams.endpoints, exchange.dialect
    if exchange.unnamed:
        first = route.chain[0]  # files and the like are kept by one server
        route = replace(route, chain=(replace(first, targets=first.targets[:1]),))

    def serves(target: Target) -> bool:
        endpoint = endpoints[target.key]
        return keeps(exchange, endpoint) if exchange.fetches else spoken(dialect, endpoint) is not None

    if all(map(serves, route.targets())):
        return route
    able = route.only(serves)
    if able.chain:
        return able
    if exchange.fetches:
        raise unknown_response(exchange.upstream_path.rpartition("/")[2])
    if dialect is COUNT_TOKENS:
        exchange.answered_here = True
        return route
    raise unsayable(exchange, endpoints[route.targets()[0].key])


async def go_on(services: Services, exchange: Exchange, response: str, route: Resolved) -> None:
    """Finds the response that the request goes on from, and for targets without it all that led to it."""
    assert exchange.caller is not None
    agent = exchange.caller.agent.id
    stored = exchange.stored = exchange.stored or await services.stored(agent, response)
    if stored is None:
        raise unknown_response(response)
    exchange.earlier_tokens = stored.tokens
    endpoints = services.upstreams.endpoints
    if all(keeps(exchange, endpoints[target.key]) for target in route.targets()):
        return
    earlier = await services.recall(agent, response)
    if earlier is None:
        raise unknown_response(response)
    exchange.earlier_tokens = max(exchange.earlier_tokens, earlier.tokens)
    exchange.whole = exchange.dialect.parse(continued(exchange.body, earlier.items))


def sized(exchange: Exchange, route: Resolved) -> bool:
    """Whether the prompt's length decides which targets it can go to."""
    return route.counts_from is not None and len(exchange.body) >= route.counts_from


def plan_of(services: Services, exchange: Exchange, route: Resolved, prefer: str = "") -> Plan:
    """The way of an admitted call through its route, which begins at the target `prefer` where it's named."""
    request = exchange.request
    assert exchange.caller is not None
    assert request is not None
    # Counted for a budget only, they don't steer: the same prompt goes the same way for every agent.
    tokens = exchange.intake.tokens if exchange.intake and sized(exchange, route) else None
    demand = Demand(
        run="" if _alone(exchange) else f"{exchange.caller.agent.id}/{exchange.run_id}",
        tokens=0 if tokens is None else tokens + exchange.earlier_tokens,
        stream=request.stream,
        prefer=prefer or (exchange.stored.target if exchange.stored else ""),
    )
    now, limit = monotonic(), exchange.hints.timeout_s
    return Plan(
        route.chain,
        services.fleet,
        now=now,
        random=services.random,
        demand=demand,
        deadline=None if limit is None else now - exchange.elapsed() + limit,
    )


def _alone(exchange: Exchange) -> bool:
    """Whether no other call can be of its run."""
    return exchange.run_inferred and not (exchange.stitched or exchange.thread or exchange.kept_thread)


def unknown_response(response: str) -> ProxyError:
    """The agent names a response that it was never given here, or that nobody keeps."""
    return ProxyError(
        Kind.INVALID_REQUEST,
        f"Response {response[:100]!r} is none that you were given here and that is still kept: "
        "send the whole conversation as input.",
        param="previous_response_id",
        retryable=False,
    )
