"""What a process tells an OTLP backend: the spans of the store's records, and its own metrics."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from llm_proxy.archive.outbox import StoreOutbox
from llm_proxy.config import Config
from llm_proxy.records.ids import now_us
from llm_proxy.records.writer import Writer
from llm_proxy.telemetry.metrics import Metrics
from llm_proxy.telemetry.outbox import OutboxExporter
from llm_proxy.telemetry.outcome import Transport
from llm_proxy.telemetry.settings import SpanSettings
from llm_proxy.telemetry.transport import headers_from, open_transport
from llm_proxy.version import VERSION

if TYPE_CHECKING:
    from llm_proxy.telemetry.otlp_metrics import OtlpMetrics


def span_settings(config: Config) -> SpanSettings:
    return SpanSettings(
        service_name=config.telemetry.service_name,
        service_version=VERSION,
        environment=config.server.environment,
    )


def transport(config: Config, environ: Mapping[str, str]) -> Transport:
    """To the config's endpoint, which must be there. Raises ValueError for headers that can't be read."""
    telemetry = config.telemetry
    assert telemetry.otlp_endpoint is not None
    headers = headers_from(environ)
    endpoint, protocol = telemetry.otlp_endpoint, telemetry.protocol.value
    return open_transport(endpoint, protocol, headers, timeout_s=telemetry.timeout_s)


def metrics_of(writer: Writer) -> Metrics:
    """A process's metrics, with those of its writer."""
    metrics = Metrics()
    metrics.track_writer_queue(lambda: writer.queued)
    metrics.track_commits(lambda: writer.commits)
    writer.took = metrics.commit_took
    return metrics


class Exporting:
    """The exporters' threads of one process; `stop` blocks for a second or two."""

    def __init__(
        self, config: Config, engine: Engine, holder: str, metrics: Metrics, environ: Mapping[str, str]
    ) -> None:
        self._outbox = StoreOutbox(engine, holder, now_us)
        self._exporter = OutboxExporter(
            self._outbox,
            transport(config, environ),
            span_settings(config),
            metrics,
            clock=time.time,
            random=random.random,
        )
        self._metrics = _metrics(config, holder, metrics, environ) if config.telemetry.metrics else None

    def start(self) -> None:
        self._exporter.start()
        if self._metrics is not None:
            self._metrics.start()

    def stop(self) -> None:
        if self._metrics is not None:
            self._metrics.stop()
        if self._exporter.stop(1.0):
            self._outbox.release()


def _metrics(config: Config, holder: str, metrics: Metrics, environ: Mapping[str, str]) -> OtlpMetrics:
    # The SDK's exporter takes 3 MB that only who exports metrics needs.
    from llm_proxy.telemetry.otlp_metrics import OtlpMetrics, open_exporter  # noqa: PLC0415

    telemetry = config.telemetry
    assert telemetry.otlp_endpoint is not None
    exporter = open_exporter(
        telemetry.otlp_endpoint,
        telemetry.protocol.value,
        headers_from(environ, "METRICS"),
        telemetry.timeout_s,
    )
    settings, interval_s = span_settings(config), telemetry.metrics_interval_s
    return OtlpMetrics(metrics.families, exporter, settings, holder, interval_s)
