"""The client metrics of OpenTelemetry's GenAI conventions, with the buckets that they advise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from llm_proxy.telemetry.providers import provider_name
from llm_proxy.telemetry.tally import Distribution

if TYPE_CHECKING:
    from llm_proxy.telemetry.metrics import CallFacts

SECONDS = tuple(0.01 * 2**i for i in range(14))
"""Bounds of the buckets of durations."""
_TOKENS = tuple(float(4**i) for i in range(14))
_LABELS = ("operation", "provider", "request_model", "response_model")


class GenAiMetrics:
    """Of calls that a provider was asked for."""

    def __init__(self, registry: CollectorRegistry, worker: str, most: int) -> None:
        def distribution(name: str, told: str, bounds: tuple[float, ...], *labels: str) -> Distribution:
            made = Distribution(f"gen_ai_client_{name}", told, (*_LABELS, *labels), worker, most, bounds)
            registry.register(made)
            return made

        self._duration = distribution(
            "operation_duration_seconds", "Time of a whole call", SECONDS, "error_type"
        )
        self._first = distribution(
            "operation_time_to_first_chunk_seconds", "Time to the first chunk", SECONDS
        )
        self._tokens = distribution("token_usage", "Tokens of a call", _TOKENS, "token_type")

    def observe(self, call: CallFacts) -> None:
        labels = (call.operation, provider_name(call.provider), call.model, call.served_model)
        if call.total_s is not None:
            self._duration.add((*labels, call.error), call.total_s)
        if call.stream and call.first_event_s is not None:
            self._first.add(labels, call.first_event_s)
        if call.usage is not None:
            self._tokens.add((*labels, "input"), call.usage.input)
            self._tokens.add((*labels, "output"), call.usage.output)
