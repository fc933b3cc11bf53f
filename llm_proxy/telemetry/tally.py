"""Counters and histograms that cost a look-up on the hot path; Prometheus' own objects lock at each step.

Each metric is written from one thread (the event loop's, or the exporter's) and read at a scrape: a scrape
may see one addition and not yet the next, and never a torn figure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

OTHER = "_other"

Labels = tuple[str, ...]


class Tally(Collector):
    """A counter by labels. Past `most` label sets, what is new counts as `_other`."""

    def __init__(self, name: str, told: str, labels: Labels, worker: str, most: int) -> None:
        self._name, self._told, self._worker, self._most = name, told, worker, most
        self._labels = ("llm_proxy_worker", *labels)
        self._counts: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float = 1) -> None:
        counts = self._counts
        if labels in counts:
            counts[labels] += amount
            return
        if len(counts) >= self._most:
            labels = (OTHER,) * len(labels)
        counts[labels] = counts.get(labels, 0) + amount

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._told, labels=self._labels)
        for labels, count in list(self._counts.items()):
            family.add_metric((self._worker, *labels), count)
        yield family


class Distribution(Collector):
    """A histogram by labels, with upper bounds `bounds`, ascending."""

    def __init__(
        self, name: str, told: str, labels: Labels, worker: str, most: int, bounds: tuple[float, ...]
    ) -> None:
        self._name, self._told, self._worker, self._most = name, told, worker, most
        self._labels = ("llm_proxy_worker", *labels)
        self._bounds = bounds
        self._cells: dict[Labels, list[float]] = {}

    def add(self, labels: Labels, value: float) -> None:
        """Counts `value`. A cell is one count per bucket, the one past all bounds last, then the sum."""
        cell = self._cells.get(labels)
        if cell is None:
            if len(self._cells) >= self._most:
                labels = (OTHER,) * len(labels)
            cell = self._cells.setdefault(labels, [0] * (len(self._bounds) + 1) + [0.0])
        cell[bisect_left(self._bounds, value)] += 1
        cell[-1] += value

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._told, labels=self._labels)
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for labels, cell in list(self._cells.items()):
            counted, running = list(cell), 0.0
            buckets: list[tuple[str, float]] = []
            for name, count in zip(names, counted, strict=False):
                running += count
                buckets.append((name, running))
            family.add_metric((self._worker, *labels), buckets, counted[-1])
        yield family
