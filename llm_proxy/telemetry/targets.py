"""How each target stands in this worker, read from its fleet at a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import assert_never

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from routing.fleet import Fleet
from routing.health import Breaker
from routing.targets import Target

_KNOWN_S = 1e-6
"""A latency that has faded below this is not known any more."""


class TargetGauges(Collector):
    """One label set per target of the config. `clock` is the fleet's: monotonic seconds."""

    def __init__(
        self, worker: str, fleet: Fleet, targets: Iterable[Target], clock: Callable[[], float]
    ) -> None:
        self._worker = worker
        self._fleet = fleet
        self._targets = tuple({target.key: target for target in targets}.values())
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        now, fleet = self._clock(), self._fleet
        loads = [(target.id, fleet.traffic.load(target.key)) for target in self._targets]
        opened = [(target.id, openness(fleet, target, now)) for target in self._targets]
        yield self._gauge("open", "Its breaker: 1 open, 0.5 half open, 0 closed", opened)
        told = [(id_, float(load.in_flight)) for id_, load in loads]
        yield self._gauge("in_flight", "Calls that this worker has there now", told)
        told = [(id_, load.requests.used(now)) for id_, load in loads]
        yield self._gauge("requests_last_minute", "Attempts within the last 60 s", told)
        told = [(id_, load.tokens.used(now)) for id_, load in loads]
        yield self._gauge("tokens_last_minute", "Tokens of attempts within the last 60 s", told)
        yield self._latency(now)

    def _gauge(self, name: str, told: str, values: Iterable[tuple[str, float]]) -> Metric:
        family = GaugeMetricFamily(f"llm_proxy_target_{name}", told, labels=("llm_proxy_worker", "target"))
        for id_, value in values:
            family.add_metric((self._worker, id_), value)
        return family

    def _latency(self, now: float) -> Metric:
        family = GaugeMetricFamily(
            "llm_proxy_target_latency_seconds",
            "Mean time to the first event; absent where it isn't known",
            labels=("llm_proxy_worker", "target", "stream"),
        )
        for target in self._targets:
            load = self._fleet.traffic.load(target.key)
            for stream in (False, True):
                mean = load.latency(stream=stream).mean(now)
                if mean >= _KNOWN_S:
                    family.add_metric((self._worker, target.id, str(stream).lower()), mean)
        return family


def openness(fleet: Fleet, target: Target, now: float) -> float:
    """1 where its breaker, or that of each of its API keys, is open; 0.5 where it is half open; else 0."""
    states = [fleet.health.state(lane, now) for lane in target.lanes]
    own = fleet.health.state(target.key, now)
    if all(state is Breaker.OPEN for state in states):
        own = Breaker.OPEN
    match own:
        case Breaker.OPEN:
            return 1.0
        case Breaker.HALF_OPEN:
            return 0.5
        case Breaker.CLOSED:
            return 0.0
        case _:
            assert_never(own)
