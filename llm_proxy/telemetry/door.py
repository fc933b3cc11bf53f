"""Requests at the door of the model APIs, as metrics: what came, what became of it, and the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class DoorCounts(NamedTuple):
    """Of one process, since it began."""

    received: int
    open: int
    """Not answered yet."""
    recorded: int
    refused: int
    """Counted in the store, by minute and reason."""
    answered: int
    """Asked for no call."""
    waiting: int
    """To be counted in the store once it takes that."""

    @property
    def unaccounted(self) -> int:
        known = self.open + self.recorded + self.refused + self.answered + self.waiting
        return self.received - known


class DoorMetrics(Collector):
    """`counts` is asked at every scrape."""

    def __init__(self, worker: str, counts: Callable[[], DoorCounts]) -> None:
        self._worker, self._counts = worker, counts

    def collect(self) -> Iterable[Metric]:
        told = self._counts()
        received = CounterMetricFamily(
            "llm_proxy_requests_received", "Requests to the model APIs", labels=("llm_proxy_worker",)
        )
        received.add_metric((self._worker,), told.received)
        yield received
        became = CounterMetricFamily(
            "llm_proxy_requests_accounted",
            "Of these: with a record, refused and counted in the store, or answered without a call",
            labels=("llm_proxy_worker", "as"),
        )
        for name, count in (
            ("record", told.recorded),
            ("refusal", told.refused),
            ("answer", told.answered),
        ):
            became.add_metric((self._worker, name), count)
        yield became
        yield self._gauge("refusals_waiting", "Refusals to be counted once the store is back", told.waiting)
        yield self._gauge(
            "requests_unaccounted",
            "Received, less what is open, accounted for or waits to be counted: 0",
            told.unaccounted,
        )

    def _gauge(self, name: str, told: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"llm_proxy_{name}", told, labels=("llm_proxy_worker",))
        family.add_metric((self._worker,), value)
        return family
