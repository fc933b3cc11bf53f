"""What the metrics count of a call that ended."""

from __future__ import annotations

from llm_proxy.exchange import Exchange
from llm_proxy.telemetry.metrics import CallFacts


def facts(exchange: Exchange) -> CallFacts:
    """What the metrics count of a call that ended."""
    spent, caller = exchange.spent, exchange.caller
    return CallFacts(
        agent=caller.agent.id if caller else "",
        model=exchange.model if exchange.target else "",
        status=exchange.status.value,
        operation=exchange.dialect.operation,
        provider=exchange.provider,
        served_model=exchange.served_model,
        stream=exchange.request.stream if exchange.request is not None else False,
        error=exchange.problem.kind if exchange.problem else "",
        usage=spent.usage if spent.label is not None else None,
        cost_micro_usd=spent.micro_usd,
        overhead_s=exchange.overhead_ms / 1000 if exchange.overhead_ms is not None else None,
        first_event_s=exchange.first_event_s,
        total_s=exchange.elapsed(),
        attempts=tuple(exchange.attempts),
        decisions=tuple(exchange.decisions),
    )
