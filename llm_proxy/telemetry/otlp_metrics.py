"""The metrics that Prometheus reads, exported by OTLP: the same figures, cumulative, every so many seconds.

Nothing is counted twice: a thread of its own reads the registry and hands it to the SDK's exporter. An
export that fails is no loss, since the next one says everything again. Importing the SDK's exporter takes
3 MB, so that only who wants it imports this module.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.core import Metric as Family
from prometheus_client.samples import Sample

from llm_proxy.telemetry.settings import SpanSettings

_log = logging.getLogger(__name__)

WORKER_LABEL = "llm_proxy_worker"
_GENAI = {
    "gen_ai_client_operation_duration_seconds": ("gen_ai.client.operation.duration", "s"),
    "gen_ai_client_operation_time_to_first_chunk_seconds": (
        "gen_ai.client.operation.time_to_first_chunk",
        "s",
    ),
    "gen_ai_client_token_usage": ("gen_ai.client.token.usage", "{token}"),
}
_ATTRIBUTES = {
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "request_model": "gen_ai.request.model",
    "response_model": "gen_ai.response.model",
    "token_type": "gen_ai.token.type",
    "error_type": "error.type",
}
"""Of the conventions' metrics."""
_CUMULATIVE = AggregationTemporality.CUMULATIVE
_UNKNOWN = cast(float, None)
"""What the encoder leaves out."""


class Exporter(Protocol):
    """The part of the SDK's exporters that is used."""

    def export(self, metrics_data: MetricsData) -> MetricExportResult: ...
    def shutdown(self, timeout_millis: float = ...) -> None: ...


class OtlpMetrics:
    """Owns one thread between `start` and `stop`. `collect` gives the registry's families as they stand."""

    def __init__(
        self,
        collect: Callable[[], Iterable[Family]],
        exporter: Exporter,
        settings: SpanSettings,
        instance: str,
        interval_s: float,
    ) -> None:
        self._collect, self._exporter, self._interval_s = collect, exporter, interval_s
        self._resource, self._scope = _resource(settings, instance), InstrumentationScope("llm_proxy")
        self._began_ns = time.time_ns()
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)
        # It says at every try what it could not do, in the backend's words.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def start(self) -> None:
        self._thread.start()

    def stop(self, grace_s: float = 1.0) -> None:
        """Exports once more, as far as that goes within `grace_s`."""
        self._stopping.set()
        self._thread.join(grace_s)
        self._exporter.shutdown(timeout_millis=100)
        self._thread.join(0.5)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self.export()
        self.export()

    def export(self) -> None:
        try:
            data = metrics_data(self._collect(), self._resource, self._scope, self._began_ns)
            taken = self._exporter.export(data) is MetricExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001  the thread's edge: the next export says it all again
            _log.error("otlp: metrics can't be exported: %s", type(error).__name__)
            return
        if taken is self._failing:
            if taken:
                _log.info("otlp: metrics are taken again")
            else:
                _log.warning("otlp: metrics are not taken; trying again every %g s", self._interval_s)
            self._failing = not taken


def open_exporter(endpoint: str, protocol: str, headers: Mapping[str, str], timeout_s: float) -> Exporter:
    """The SDK's exporter for `http/protobuf` or `grpc`. Nothing is contacted yet."""
    url = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    if protocol == "grpc":
        import grpc  # noqa: PLC0415  16 MB of memory that only this protocol needs
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter  # noqa: PLC0415  it imports grpc

        return metric_exporter.OTLPMetricExporter(
            endpoint=url.netloc.rpartition("@")[2],
            insecure=url.scheme != "https",
            headers=tuple((key.lower(), value) for key, value in headers.items()),
            timeout=timeout_s,
            compression=grpc.Compression.Gzip,
        )
    path = url.path.rstrip("/").removesuffix("/v1/traces") + "/v1/metrics"
    return OTLPMetricExporter(
        endpoint=url._replace(path=path).geturl(),
        headers=dict(headers),
        timeout=timeout_s,
        compression=Compression.Gzip,
    )


def metrics_data(
    families: Iterable[Family], resource: Resource, scope: InstrumentationScope, began_ns: int
) -> MetricsData:
    now_ns = time.time_ns()
    told = [metric for family in families if (metric := _metric(family, began_ns, now_ns)) is not None]
    scoped = ScopeMetrics(scope=scope, metrics=told, schema_url="")
    whole = ResourceMetrics(resource=resource, scope_metrics=[scoped], schema_url="")
    return MetricsData(resource_metrics=[whole])


def _metric(family: Family, began_ns: int, now_ns: int) -> Metric | None:
    samples: list[Sample] = list(family.samples)
    if not samples:
        return None
    name, unit = _named(family.name)
    data: Sum | Gauge | Histogram
    match family.type:
        case "counter":
            counted = [sample for sample in samples if sample.name.endswith("_total")]
            data = Sum(_numbers(counted, began_ns, now_ns), _CUMULATIVE, is_monotonic=True)
        case "histogram":
            data = Histogram(_histograms(samples, began_ns, now_ns), _CUMULATIVE)
        case _:
            data = Gauge(_numbers(samples, began_ns, now_ns))
    return Metric(name=name, description=family.documentation, unit=unit, data=data)


def _named(name: str) -> tuple[str, str]:
    """A metric's name and unit in OpenTelemetry's words."""
    if name in _GENAI:
        return _GENAI[name]
    return name.replace("llm_proxy_", "llm_proxy.", 1), "s" if name.endswith("_seconds") else "1"


def _attributes(labels: Mapping[str, str]) -> dict[str, Any]:
    genai = "operation" in labels
    return {
        _ATTRIBUTES.get(key, key) if genai else key: value
        for key, value in labels.items()
        if key not in (WORKER_LABEL, "le") and value
    }


def _numbers(samples: Iterable[Sample], began_ns: int, now_ns: int) -> list[NumberDataPoint]:
    return [
        NumberDataPoint(_attributes(sample.labels), began_ns, now_ns, float(sample.value))
        for sample in samples
    ]


def _histograms(samples: Iterable[Sample], began_ns: int, now_ns: int) -> list[HistogramDataPoint]:
    """Prometheus counts what is at or below each bound; OTLP what is between two."""
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        key = tuple((k, v) for k, v in sample.labels.items() if k != "le")
        series.setdefault(key, []).append(sample)
    points: list[HistogramDataPoint] = []
    for key, of_one in series.items():
        buckets = [(float(s.labels["le"]), int(s.value)) for s in of_one if s.name.endswith("_bucket")]
        total = next((s.value for s in of_one if s.name.endswith("_sum")), 0.0)
        counts = [count - before for (_, count), before in zip(buckets, _before(buckets), strict=True)]
        points.append(
            HistogramDataPoint(
                attributes=_attributes(dict(key)),
                start_time_unix_nano=began_ns,
                time_unix_nano=now_ns,
                count=buckets[-1][1],
                sum=float(total),
                bucket_counts=counts,
                explicit_bounds=[bound for bound, _ in buckets[:-1]],
                min=_UNKNOWN,
                max=_UNKNOWN,
            )
        )
    return points


def _before(buckets: list[tuple[float, int]]) -> list[int]:
    return [0, *(count for _, count in buckets[:-1])]


def _resource(settings: SpanSettings, instance: str) -> Resource:
    told = {
        "service.name": settings.service_name,
        "service.version": settings.service_version,
        "service.instance.id": instance,
        "deployment.environment.name": settings.environment,
    }
    return Resource({key: value for key, value in told.items() if value})
