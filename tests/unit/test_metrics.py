"""What a scrape shows after calls and exports."""

from __future__ import annotations

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from llm_proxy.records.view import Problem, Status
from llm_proxy.telemetry.metrics import MAX_SERIES, CallFacts, Metrics
from routing.failures import FailureKind
from routing.fleet import Fleet
from routing.targets import Route, RouteTable, Target
from tests.unit.telemetry_calls import facts_of, plain_call, rich_call


def scraped(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Samples by name and labels (the worker's left out), labels in the order of their names."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            assert sample.labels.pop("llm_proxy_worker") == "42"
            found[sample.name, *sample.labels.values()] = sample.value
    return found


def test_a_call_is_counted_everywhere_it_belongs() -> None:
    metrics = Metrics(worker="42")
    metrics.observe_call(facts_of(rich_call()))
    refused = msgspec.structs.replace(
        plain_call(1), status=Status.REFUSED, problem=Problem(kind="budget_exceeded", message="", status=429)
    )
    metrics.observe_call(facts_of(refused))
    got = scraped(metrics)
    assert got["llm_proxy_calls_total", "triage-bot", "gpt-4o-mini", "ok"] == 1
    assert got["llm_proxy_calls_total", "triage-bot", "gpt-4o-mini", "refused"] == 1
    assert got["llm_proxy_errors_total", "budget_exceeded"] == 1
    tokens = {key[3]: value for key, value in got.items() if key[0] == "llm_proxy_tokens_total"}
    assert tokens == {"input": 120, "output": 45, "cached": 100, "cache_write": 5, "reasoning": 30}
    assert got["llm_proxy_cost_micro_usd_total", "triage-bot", "gpt-4o-mini"] == 1234
    assert got["llm_proxy_decisions_total", "allow", "labels"] == 1
    assert got["llm_proxy_decisions_total", "deny", "arguments"] == 1
    assert got["llm_proxy_attempts_total", "unavailable", "openai"] == 1
    assert got["llm_proxy_attempts_total", "ok", "local"] == 1
    assert got["llm_proxy_overhead_seconds_count",] == 1
    assert got["llm_proxy_overhead_seconds_bucket", "0.001"] == 0
    assert got["llm_proxy_overhead_seconds_bucket", "0.002"] == 1
    assert got["llm_proxy_call_seconds_sum", "gpt-4o-mini"] == 2.0


def test_gauges_follow() -> None:
    metrics = Metrics(worker="42")
    depth = [3]
    metrics.track_writer_queue(lambda: depth[0])
    metrics.call_started()
    metrics.call_started()
    metrics.call_ended()
    metrics.backlog(12, 34.5)
    depth[0] = 7
    got = scraped(metrics)
    assert got["llm_proxy_in_flight",] == 1
    assert got["llm_proxy_writer_queue_depth",] == 7
    assert got["llm_proxy_otlp_unsent",] == 12
    assert got["llm_proxy_otlp_oldest_unsent_seconds",] == 34.5


def test_targets_are_told_as_they_stand_at_the_scrape() -> None:
    clock = [1_000.0]
    targets = (Target("a", "openai", "m", api_keys=2), Target("b", "openai", "m"), Target("c", "openai", "m"))
    fleet, metrics = Fleet(), Metrics(worker="42")
    metrics.track_targets(fleet, RouteTable([Route("m", targets)]), lambda: clock[0])
    fleet.health.hold_open("a#1", 1_030.0)
    fleet.health.hold_open("b", 1_010.0, FailureKind.OVERLOADED)
    fleet.traffic.began("c", 70, 1_000.0)
    fleet.traffic.load("c").streamed.heard(0.25, 1_000.0)
    got = scraped(metrics)
    assert [got["llm_proxy_target_open", id_] for id_ in "abc"] == [0, 1, 0]
    assert [got["llm_proxy_target_in_flight", id_] for id_ in "abc"] == [0, 0, 1]
    assert got["llm_proxy_target_requests_last_minute", "c"] == 1
    assert got["llm_proxy_target_tokens_last_minute", "c"] == 70
    latencies = {key[1:]: value for key, value in got.items() if key[0] == "llm_proxy_target_latency_seconds"}
    assert latencies == {("true", "c"): 0.25}

    fleet.health.hold_open("a#2", 1_030.0)
    clock[0] = 1_020.0
    got = scraped(metrics)
    assert [got["llm_proxy_target_open", id_] for id_ in "abc"] == [1, 0.5, 0]
    clock[0] = 1_700.0
    got = scraped(metrics)
    assert got["llm_proxy_target_requests_last_minute", "c"] == 0
    assert not [key for key in got if key[0] == "llm_proxy_target_latency_seconds"]


def test_names_that_callers_make_up_cannot_grow_without_end() -> None:
    metrics = Metrics(worker="42")
    for n in range(MAX_SERIES + 50):
        metrics.observe_call(CallFacts(agent="a", model=f"made-up-{n}", status="refused"))
    calls = {k: v for k, v in scraped(metrics).items() if k[0] == "llm_proxy_calls_total"}
    assert len(calls) == MAX_SERIES + 1
    assert calls["llm_proxy_calls_total", "_other", "_other", "_other"] == 50
    assert sum(calls.values()) == MAX_SERIES + 50


def test_two_apps_in_one_process_share_nothing() -> None:
    one, other = Metrics(worker="42"), Metrics(worker="42")
    one.observe_call(facts_of(plain_call(1)))
    assert scraped(one)["llm_proxy_calls_total", "triage-bot", "gpt-4o-mini", "ok"] == 1
    assert not [key for key in scraped(other) if key[0] == "llm_proxy_calls_total"]
