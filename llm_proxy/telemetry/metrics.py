"""What Prometheus reads. One private registry per app; each worker has its own, told apart by its pid."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from llm_proxy.chat.events import Usage
from llm_proxy.records.view import Attempt, CallView, Decision

CONTENT_TYPE = CONTENT_TYPE_LATEST
MAX_SERIES = 2_000
"""Label sets per metric. Callers choose model and tool names, so what comes after counts as `_other`."""

_OVERHEAD_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_DURATION_S = tuple(0.01 * 2**i for i in range(14))
_OTHER = "_other"

_Metric = TypeVar("_Metric", Counter, Histogram)


class CallFacts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a closed call counts for. `error` is a `Kind` or empty; times are seconds; money micro-USD."""

    agent: str
    model: str
    status: str
    error: str = ""
    usage: Usage | None = None
    cost_micro_usd: int = 0
    overhead_s: float | None = None
    first_event_s: float | None = None
    total_s: float | None = None
    attempts: tuple[Attempt, ...] = ()
    decisions: tuple[Decision, ...] = ()


def facts_of(call: CallView) -> CallFacts:
    return CallFacts(
        agent=call.agent_id,
        model=call.model,
        status=call.status,
        error=call.problem.kind if call.problem else "",
        usage=call.usage,
        cost_micro_usd=call.cost_micro_usd,
        overhead_s=call.overhead_ms / 1000 if call.overhead_ms is not None else None,
        first_event_s=call.first_event_s,
        total_s=call.total_s,
        attempts=call.attempts,
        decisions=call.decisions,
    )


class _Series(Generic[_Metric]):
    """The children of one metric, each bound to its labels once."""

    __slots__ = ("_bound", "_metric", "_worker")

    def __init__(self, metric: _Metric, worker: str) -> None:
        self._metric = metric
        self._worker = worker
        self._bound: dict[tuple[str, ...], _Metric] = {}

    def at(self, *labels: str) -> _Metric:
        found = self._bound.get(labels)
        return found if found is not None else self._bind(labels)

    def _bind(self, labels: tuple[str, ...]) -> _Metric:
        if len(self._bound) >= MAX_SERIES:
            labels = (_OTHER,) * len(labels)
        child = self._bound.get(labels)
        if child is None:
            child = self._bound[labels] = self._metric.labels(self._worker, *labels)
        return child


class Metrics:
    """Counts what happens. Thread-safe; every method is a few microseconds and does no I/O."""

    def __init__(self, registry: CollectorRegistry | None = None, worker: str | None = None) -> None:
        self._registry = registry or CollectorRegistry(auto_describe=False)
        self._worker = worker or str(os.getpid())
        self._calls = self._counter("calls", "Calls that ended", "agent", "model", "status")
        self._errors = self._counter("errors", "Calls refused or failed", "kind")
        self._tokens = self._counter(
            "tokens",
            "Tokens; cached, cache_write and reasoning are parts of input and output",
            "agent",
            "model",
            "type",
        )
        self._cost = self._counter("cost_micro_usd", "Cost in millionths of a US dollar", "agent", "model")
        self._decisions = self._counter("decisions", "Verdicts on tool calls", "decision", "rule")
        self._attempts = self._counter(
            "attempts", "Tries at targets; outcome ok or a failure", "target", "outcome"
        )
        self._overhead = self._histogram("overhead_seconds", "Time in the proxy itself", _OVERHEAD_S)
        self._first = self._histogram("first_event_seconds", "Time to the first event", _DURATION_S, "model")
        self._total = self._histogram("call_seconds", "Time of a whole call", _DURATION_S, "model")
        self._in_flight = self._gauge("in_flight", "Calls being served")
        self._queue = self._gauge("writer_queue_depth", "Writes waiting for the store")
        self._spans = self._counter("otlp_spans", "Spans by what became of them", "outcome")
        self._retries = self._counter("otlp_retries", "Export requests to be tried again", "why")
        self._unsent = self._gauge("otlp_unsent", "Calls whose span was not sent yet")
        self._oldest = self._gauge("otlp_oldest_unsent_seconds", "Age of the oldest call not sent yet")

    def render(self) -> bytes:
        """The exposition text, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def call_started(self) -> None:
        self._in_flight.inc()

    def call_ended(self) -> None:
        self._in_flight.dec()

    def observe_call(self, call: CallFacts) -> None:
        """Counts a call that ended. Exactly once per call, refused ones included."""
        agent, model = call.agent, call.model
        self._calls.at(agent, model, call.status).inc()
        if call.error:
            self._errors.at(call.error).inc()
        if call.usage is not None:
            self._count_tokens(agent, model, call.usage)
        if call.cost_micro_usd:
            self._cost.at(agent, model).inc(call.cost_micro_usd)
        if call.overhead_s is not None:
            self._overhead.at().observe(call.overhead_s)
        if call.first_event_s is not None:
            self._first.at(model).observe(call.first_event_s)
        if call.total_s is not None:
            self._total.at(model).observe(call.total_s)
        for attempt in call.attempts:
            self._attempts.at(attempt.target, attempt.failure or "ok").inc()
        for decision in call.decisions:
            self._decisions.at(decision.decision, decision.rule).inc()

    def _count_tokens(self, agent: str, model: str, usage: Usage) -> None:
        at = self._tokens.at
        at(agent, model, "input").inc(usage.input)
        at(agent, model, "output").inc(usage.output)
        if usage.cached:
            at(agent, model, "cached").inc(usage.cached)
        if usage.cache_write:
            at(agent, model, "cache_write").inc(usage.cache_write)
        if usage.reasoning:
            at(agent, model, "reasoning").inc(usage.reasoning)

    def track_writer_queue(self, depth: Callable[[], float]) -> None:
        """`depth` is asked at every scrape."""
        self._queue.set_function(depth)

    def spans_accepted(self, count: int) -> None:
        self._spans.at("accepted").inc(count)

    def span_rejected(self) -> None:
        """Refused by the backend when sent alone and whole."""
        self._spans.at("rejected").inc()

    def span_dead_lettered(self) -> None:
        self._spans.at("dead_lettered").inc()

    def export_retried(self, why: str) -> None:
        self._retries.at(why).inc()

    def backlog(self, count: int, oldest_s: float) -> None:
        self._unsent.set(count)
        self._oldest.set(oldest_s)

    def _counter(self, name: str, told: str, *labels: str) -> _Series[Counter]:
        metric = Counter(f"llm_proxy_{name}", told, ("llm_proxy_worker", *labels), registry=self._registry)
        return _Series(metric, self._worker)

    def _histogram(
        self, name: str, told: str, buckets: tuple[float, ...], *labels: str
    ) -> _Series[Histogram]:
        names = ("llm_proxy_worker", *labels)
        metric = Histogram(f"llm_proxy_{name}", told, names, registry=self._registry, buckets=buckets)
        return _Series(metric, self._worker)

    def _gauge(self, name: str, told: str) -> Gauge:
        gauge = Gauge(f"llm_proxy_{name}", told, ("llm_proxy_worker",), registry=self._registry)
        return gauge.labels(self._worker)
