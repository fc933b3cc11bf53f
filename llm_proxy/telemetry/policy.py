"""Which policy is in force in this worker, read at a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class PolicyState(NamedTuple):
    sha256: str
    mode: str


class PolicyGauge(Collector):
    """One series of value 1, whose labels name the policy in force."""

    def __init__(self, worker: str, state: Callable[[], PolicyState]) -> None:
        self._worker = worker
        self._state = state

    def collect(self) -> Iterable[Metric]:
        labels = ("llm_proxy_worker", "sha256", "mode")
        family = GaugeMetricFamily("llm_proxy_policy_info", "The policy in force", labels=labels)
        family.add_metric((self._worker, *self._state()), 1)
        yield family
