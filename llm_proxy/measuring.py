"""How a call's prompt is counted for the targets of its route, and what their answers say of the count."""

from __future__ import annotations

from llm_proxy.counting.error import TokenErrors, error_key
from llm_proxy.counting.tokenizers import Tokenizer, tokenizer_of
from llm_proxy.exchange import Exchange
from llm_proxy.telemetry.metrics import Metrics
from routing.targets import Resolved


def ways_of(route: Resolved) -> frozenset[Tokenizer]:
    """The ways in which the route's targets count."""
    return frozenset([tokenizer_of(target.provider, target.model) for target in route.targets()])


def held_tokens(exchange: Exchange, route: Resolved, errors: TokenErrors) -> int:
    """Prompt tokens as the hold takes them: each target's own count, raised by its error, and the most.

    What a stored conversation had was reported, and stands as it is.
    """
    intake = exchange.intake
    if intake is None or intake.tokens is None:
        return exchange.earlier_tokens
    most = 0
    for target in route.targets():
        way = tokenizer_of(target.provider, target.model)
        counted = intake.counted_by(way) or 0
        most = max(most, errors.raised(error_key(target.provider, target.model), counted, way.prior))
    return most + exchange.earlier_tokens


def measure(exchange: Exchange, errors: TokenErrors, metrics: Metrics) -> None:
    """Compares what an answer reported with what was counted, where all of the prompt is in both."""
    intake, usage = exchange.intake, exchange.assembly.usage
    if intake is None or not intake.exact or usage is None or exchange.resumed or exchange.earlier_tokens:
        return
    provider, model = exchange.provider, exchange.served_model
    counted = intake.counted.get(tokenizer_of(provider, model), 0)
    ratio = errors.observe(error_key(provider, model), counted, usage.input)
    if ratio is not None:
        metrics.token_count_measured(provider, model, ratio)
