"""How a call's prompt is counted for the targets of its route, and what their answers say of the count."""

from __future__ import annotations

from collections.abc import Iterable

from llm_proxy.counting.error import TokenErrors, error_key
from llm_proxy.counting.lengths import ReplyLengths
from llm_proxy.counting.prompt import within
from llm_proxy.counting.tokenizers import Tokenizer, tokenizer_of
from llm_proxy.exchange import Exchange, Spent
from llm_proxy.pricing.price import Price
from llm_proxy.telemetry.metrics import Metrics
from routing.targets import Resolved


def ways_of(route: Resolved) -> frozenset[Tokenizer]:
    """The ways in which the route's targets count."""
    return frozenset([tokenizer_of(target.provider, target.model) for target in route.targets()])


def held_tokens(
    exchange: Exchange, route: Resolved, errors: TokenErrors, prices: Iterable[Price | None]
) -> int:
    """Prompt tokens as the hold takes them: each target's own count, raised by its error, and the most.

    `prices` are those of the route's targets, in order: what is only a bound is no more than the model takes.
    What a stored conversation had was reported, and stands as it is.
    """
    intake = exchange.intake
    if intake is None or intake.tokens is None:
        return exchange.earlier_tokens
    most = 0
    for target, price in zip(route.targets(), prices, strict=True):
        way, key = tokenizer_of(target.provider, target.model), error_key(target.provider, target.model)
        counted = intake.counted_by(way) or 0
        tokens = errors.raised(key, counted, way.prior)
        if intake.bounded and price is not None:
            read = errors.raised(key, counted - intake.bounded, way.prior)
            tokens = within(price.window, tokens, read)
        most = max(most, tokens)
    return most + exchange.earlier_tokens


def measure(exchange: Exchange, errors: TokenErrors, metrics: Metrics) -> None:
    """Compares what an answer reported with what was counted, where all of the prompt is in both."""
    intake, usage = exchange.intake, exchange.assembly.usage
    if intake is None or not intake.exact or usage is None or exchange.resumed or exchange.earlier_tokens:
        return
    if exchange.offer is not None and exchange.offer.gone:  # it was counted with what was withheld
        return
    provider, model = exchange.provider, exchange.served_model
    counted = intake.counted.get(tokenizer_of(provider, model), 0)
    ratio = errors.observe(error_key(provider, model), counted, usage.input)
    if ratio is not None:
        metrics.token_count_measured(provider, model, ratio)


def learn(exchange: Exchange, spent: Spent, lengths: ReplyLengths) -> None:
    """Takes in how long a whole reply was, each of several choices by itself."""
    request, output = exchange.request, spent.usage.output
    if exchange.dialect.generates and request is not None and output:
        lengths.observe(error_key(exchange.provider, exchange.served_model), -(-output // request.n))
