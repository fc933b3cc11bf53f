"""Metrics over OTLP, by the SDK's exporter, to a real receiver: the figures that Prometheus reads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from llm_proxy.telemetry.metrics import Metrics
from llm_proxy.telemetry.otlp_metrics import OtlpMetrics, open_exporter
from llm_proxy.telemetry.settings import SpanSettings
from tests.otlp_receiver import OtlpReceiver
from tests.unit.telemetry_calls import facts_of, plain_call, rich_call

SETTINGS = SpanSettings(service_name="proxy-eu", service_version="0.1", environment="prod")


class Servicer(MetricsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(
        self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> ExportMetricsServiceResponse:
        self._receiver.measure(request)
        return ExportMetricsServiceResponse()


@pytest.fixture(params=["http/protobuf", "grpc"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[OtlpReceiver, str, str]]:
    """A receiver, its endpoint, and the protocol that it speaks."""
    receiver = OtlpReceiver()
    if request.param == "http/protobuf":
        with receiver:
            yield receiver, receiver.endpoint, request.param
        return
    server = grpc.server(ThreadPoolExecutor(2))
    add_MetricsServiceServicer_to_server(Servicer(receiver), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield receiver, f"http://127.0.0.1:{port}", request.param
    server.stop(0).wait()


def plain(attributes: Iterator[KeyValue]) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in attributes}


def by_name(request: ExportMetricsServiceRequest) -> dict[str, Metric]:
    (resource,) = request.resource_metrics
    (scoped,) = resource.scope_metrics
    return {metric.name: metric for metric in scoped.metrics}


def test_what_is_counted_arrives(place: tuple[OtlpReceiver, str, str]) -> None:
    receiver, endpoint, protocol = place
    metrics = Metrics(worker="42")
    metrics.observe_call(facts_of(rich_call()))
    exporting = OtlpMetrics(
        metrics.families, open_exporter(endpoint, protocol, {}, 5.0), SETTINGS, "instance-1", 0.1
    )
    exporting.start()
    assert receiver.wait_until(lambda: len(receiver.metrics) >= 1)
    metrics.observe_call(facts_of(rich_call()))
    metrics.observe_call(facts_of(plain_call(1)))
    exporting.stop()
    first, last = receiver.metrics[0], receiver.metrics[-1]
    resource = plain(iter(last.resource_metrics[0].resource.attributes))
    assert (resource["service.name"], resource["service.instance.id"]) == ("proxy-eu", "instance-1")
    told = by_name(last)
    duration = told["gen_ai.client.operation.duration"]
    assert duration.unit == "s"
    assert duration.histogram.aggregation_temporality == (
        AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    )
    (point,) = duration.histogram.data_points
    assert plain(iter(point.attributes)) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini-2024",
    }
    assert (point.count, point.sum) == (2, 3.0), "a call that no provider was asked for is none of these"
    assert list(point.explicit_bounds) == [0.01 * 2**n for n in range(14)]
    assert sum(point.bucket_counts) == 2
    assert point.bucket_counts[8] == 2, "1.5 s is between 1.28 and 2.56"
    assert not point.HasField("min")
    tokens = {
        plain(iter(p.attributes))["gen_ai.token.type"]: p
        for p in told["gen_ai.client.token.usage"].histogram.data_points
    }
    assert {kind: (p.count, p.sum) for kind, p in tokens.items()} == {"input": (2, 240), "output": (2, 90)}
    assert list(tokens["input"].explicit_bounds) == [4.0**n for n in range(14)]
    assert told["gen_ai.client.token.usage"].unit == "{token}"
    (chunk,) = told["gen_ai.client.operation.time_to_first_chunk"].histogram.data_points
    assert (chunk.count, chunk.sum) == (2, 1.0)
    calls = told["llm_proxy.calls"]
    assert calls.sum.is_monotonic
    assert sum(p.as_double for p in calls.sum.data_points) == 3
    assert calls.sum.data_points[0].start_time_unix_nano == (
        by_name(first)["llm_proxy.calls"].sum.data_points[0].start_time_unix_nano
    )
    assert "llm_proxy_worker" not in plain(iter(calls.sum.data_points[0].attributes))
    assert told["llm_proxy.in_flight"].gauge.data_points[0].as_double == 0


def test_a_backend_that_is_down_is_said_once_and_stopping_is_quick(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = OtlpReceiver().reserve_port()
    metrics = Metrics(worker="42")
    exporter = open_exporter(receiver.endpoint, "http/protobuf", {"x-key": "s3cret"}, 0.2)
    exporting = OtlpMetrics(metrics.families, exporter, SETTINGS, "instance-1", 60)
    exporting.export()
    exporting.export()
    with receiver:
        exporting.export()
    exporting.start()
    exporting.stop(0.5)
    assert [record.levelname for record in caplog.records][:1] == ["WARNING"]
    assert [r.getMessage() for r in caplog.records].count(
        "otlp: metrics are not taken; trying again every 60 s"
    ) in (1, 2), "once for each time that it went down"
    assert "s3cret" not in caplog.text
    assert len(receiver.metrics) == 1


def test_without_metrics_over_otlp_the_sdk_is_not_there() -> None:
    heavy = "{'opentelemetry.sdk', 'grpc'} & set(sys.modules)"
    code = f"import sys, llm_proxy.exporting; sys.exit(', '.join({heavy}) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
