"""What Prometheus reads. One private registry per app; each worker has its own, told apart by its pid."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import msgspec
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    generate_latest,
)
from prometheus_client.core import Metric

from llm_proxy.chat.events import Usage
from llm_proxy.records.view import Attempt, Decision
from llm_proxy.telemetry.door import DoorCounts, DoorMetrics
from llm_proxy.telemetry.genai_metrics import SECONDS, GenAiMetrics
from llm_proxy.telemetry.policy import PolicyGauge, PolicyState
from llm_proxy.telemetry.tally import Distribution, Tally
from llm_proxy.telemetry.targets import TargetGauges
from routing.fleet import Fleet
from routing.targets import RouteTable

CONTENT_TYPE = CONTENT_TYPE_LATEST
MAX_SERIES = 2_000
"""Label sets per metric. Callers choose model and tool names, so what comes after counts as `_other`."""

_OVERHEAD_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_COMMIT_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_COUNT_ERROR = (0.5, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0, 4.0)


class CallFacts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a closed call counts for. `error` is a `Kind` or empty; times are seconds; money micro-USD."""

    agent: str
    model: str
    status: str
    error: str = ""
    operation: str = "chat"
    provider: str = ""
    """Empty where none was asked."""
    served_model: str = ""
    stream: bool = False
    usage: Usage | None = None
    cost_micro_usd: int = 0
    overhead_s: float | None = None
    first_event_s: float | None = None
    total_s: float | None = None
    attempts: tuple[Attempt, ...] = ()
    decisions: tuple[Decision, ...] = ()


class Metrics:
    """Counts what happens; every method is about a microsecond and does no I/O."""

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
        self._budget_events = self._counter(
            "budget_events", "Levels of limits that were reached, refusals, downgrades", "limit", "event"
        )
        self._reload_failures = self._counter(
            "policy_reload_failures", "Changed policy files that could not be used"
        )
        self._deliveries = self._counter(
            "webhook_deliveries",
            "Tries at webhooks: delivered, to be retried, given up",
            "webhook",
            "outcome",
        )
        self._attempts = self._counter(
            "attempts", "Tries at targets; outcome ok or a failure", "target", "outcome"
        )
        self._overhead = self._histogram("overhead_seconds", "Time in the proxy itself", _OVERHEAD_S)
        self._first = self._histogram("first_event_seconds", "Time to the first event", SECONDS, "model")
        self._total = self._histogram("call_seconds", "Time of a whole call", SECONDS, "model")
        self._count_error = self._histogram(
            "token_count_error",
            "Prompt tokens that an answer reported, over those that were counted",
            _COUNT_ERROR,
            "provider",
            "model",
        )
        self._genai = GenAiMetrics(self._registry, self._worker, MAX_SERIES)
        self._open = 0
        self._gauge("in_flight", "Calls being served").set_function(lambda: self._open)
        self._queue = self._gauge("writer_queue_depth", "Writes waiting for the store")
        self._commits = self._gauge("writer_commits", "Transactions that the writer has committed")
        self._commit = self._histogram("commit_seconds", "Time of a transaction of the writer", _COMMIT_S)
        self._spans = self._counter("otlp_spans", "Spans by what became of them", "outcome")
        self._retries = self._counter("otlp_retries", "Export requests to be tried again", "why")
        self._unsent = self._gauge("otlp_unsent", "Records that the exporter has not passed yet")
        self._oldest = self._gauge("otlp_oldest_unsent_seconds", "Age of the oldest of them")
        self._unindexed = self._gauge("search_unindexed", "Records that the search index has not passed yet")
        self._oldest_unindexed = self._gauge("search_oldest_unindexed_seconds", "Age of the oldest of them")

    def families(self) -> Iterable[Metric]:
        """Everything as it stands."""
        return self._registry.collect()

    def render(self) -> bytes:
        """The exposition text, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def call_started(self) -> None:
        self._open += 1

    def call_ended(self) -> None:
        self._open -= 1

    def observe_call(self, call: CallFacts) -> None:
        """Counts a call that ended. Exactly once per call, refused ones included."""
        agent, model = call.agent, call.model
        self._calls.add((agent, model, call.status))
        if call.error:
            self._errors.add((call.error,))
        if call.usage is not None:
            self._count_tokens(agent, model, call.usage)
        if call.cost_micro_usd:
            self._cost.add((agent, model), call.cost_micro_usd)
        if call.overhead_s is not None:
            self._overhead.add((), call.overhead_s)
        if call.first_event_s is not None:
            self._first.add((model,), call.first_event_s)
        if call.total_s is not None:
            self._total.add((model,), call.total_s)
        if call.provider:
            self._genai.observe(call)
        for attempt in call.attempts:
            self._attempts.add((attempt.target, attempt.failure or "ok"))
        for decision in call.decisions:
            self._decisions.add((decision.decision, decision.rule))

    def _count_tokens(self, agent: str, model: str, usage: Usage) -> None:
        add = self._tokens.add
        add((agent, model, "input"), usage.input)
        add((agent, model, "output"), usage.output)
        if usage.cached:
            add((agent, model, "cached"), usage.cached)
        if usage.cache_write:
            add((agent, model, "cache_write"), usage.cache_write)
        if usage.reasoning:
            add((agent, model, "reasoning"), usage.reasoning)

    def token_count_measured(self, provider: str, model: str, ratio: float) -> None:
        """An answer told how far its prompt was from the count."""
        self._count_error.add((provider, model), ratio)

    def track_writer_queue(self, depth: Callable[[], float]) -> None:
        """`depth` is asked at every scrape."""
        self._queue.set_function(depth)

    def track_commits(self, commits: Callable[[], float]) -> None:
        """`commits`, of the writer since its start, is asked at every scrape."""
        self._commits.set_function(commits)

    def commit_took(self, seconds: float) -> None:
        """A transaction was committed. From the writer's thread alone."""
        self._commit.add((), seconds)

    def track_targets(self, fleet: Fleet, routes: RouteTable, clock: Callable[[], float]) -> None:
        """Each scrape tells how the routes' targets stand, by the fleet's own clock. Called once."""
        targets = (target for route in routes.routes() for target in route.targets)
        self._registry.register(TargetGauges(self._worker, fleet, targets, clock))

    def track_door(self, counts: Callable[[], DoorCounts]) -> None:
        """`counts` is asked at every scrape. Called once."""
        self._registry.register(DoorMetrics(self._worker, counts))

    def track_policy(self, state: Callable[[], PolicyState]) -> None:
        """`state` is asked at every scrape. Called once."""
        self._registry.register(PolicyGauge(self._worker, state))

    def policy_refused(self) -> None:
        """A changed policy file could not be used."""
        self._reload_failures.add(())

    def budget_event(self, limit: str, event: str) -> None:
        """A limit reached a level, refused a call, or had another model asked."""
        self._budget_events.add((limit, event))

    def webhook_tried(self, webhook: str, outcome: str) -> None:
        self._deliveries.add((webhook, outcome))

    def spans_accepted(self, count: int) -> None:
        self._spans.add(("accepted",), count)

    def span_rejected(self) -> None:
        """Refused by the backend when sent alone and whole."""
        self._spans.add(("rejected",))

    def span_dead_lettered(self) -> None:
        self._spans.add(("dead_lettered",))

    def export_retried(self, why: str) -> None:
        self._retries.add((why,))

    def search_backlog(self, count: int, oldest_s: float) -> None:
        """How far the search index is behind. Known to the process that keeps it; 0 in the others."""
        self._unindexed.set(count)
        self._oldest_unindexed.set(oldest_s)

    def backlog(self, count: int, oldest_s: float) -> None:
        self._unsent.set(count)
        self._oldest.set(oldest_s)

    def _counter(self, name: str, told: str, *labels: str) -> Tally:
        tally = Tally(f"llm_proxy_{name}", told, labels, self._worker, MAX_SERIES)
        self._registry.register(tally)
        return tally

    def _histogram(self, name: str, told: str, bounds: tuple[float, ...], *labels: str) -> Distribution:
        distribution = Distribution(f"llm_proxy_{name}", told, labels, self._worker, MAX_SERIES, bounds)
        self._registry.register(distribution)
        return distribution

    def _gauge(self, name: str, told: str) -> Gauge:
        gauge = Gauge(f"llm_proxy_{name}", told, ("llm_proxy_worker",), registry=self._registry)
        return gauge.labels(self._worker)
