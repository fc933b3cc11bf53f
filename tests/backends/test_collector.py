"""otel-collector.yaml in a real collector: nothing accepted is lost, and each copy holds what it should.

`make test-collector` builds one and runs these; `OTELCOL=/path/to/otelcol-contrib` names another.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import aiohttp
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.backends.collector import Collector, Paths, collecting, validated
from tests.backends.traced_house import MODEL, play, traced_proxy
from tests.otlp_receiver import Answer, OtlpReceiver, attributes_of
from tests.proxy import ProxyProcess, ask, headers, until

pytestmark = pytest.mark.collector

SAMPLED = {"OTELCOL_SAMPLED_TO": "otlp_http/sampled"}


def _sent(*spans: Span) -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.extend(spans)
    return request.SerializeToString()


def _one_metric() -> bytes:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    metric.gauge.data_points.add().as_int = 1
    return request.SerializeToString()


def _post(collector: Collector, path: str, body: bytes) -> int:
    told = {"content-type": "application/x-protobuf"}
    asked = urllib.request.Request(collector.endpoint + path, body, told)
    try:
        with urllib.request.urlopen(asked, timeout=30) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def _calls_among(spans: Iterable[Span]) -> set[str]:
    told = (attributes_of(span) for span in spans)
    return {str(attributes.get("llm_proxy.call.id")) for attributes in told}


async def _all_sent(proxy: ProxyProcess) -> None:
    """Waits until the proxy has nothing left to send: the collector accepted it all."""

    async def none() -> bool:
        async with aiohttp.ClientSession() as http, http.get(f"{proxy.origin}/metrics") as reply:
            lines = (await reply.text()).splitlines()
        left = [line for line in lines if line.startswith("llm_proxy_otlp_unsent")]
        return bool(left) and all(float(line.rsplit(" ", 1)[1]) == 0 for line in left)

    await proxy.settled()
    await until(none, "the proxy has sent every span", 60)


async def _asked(proxy: ProxyProcess, runs: Iterable[str]) -> list[str]:
    """One call in each run; their ids."""
    async with aiohttp.ClientSession() as http:

        async def one(run: str) -> str:
            body = ask(model=MODEL)
            async with http.post(proxy.url, json=body, headers=headers(x_run_id=run)) as reply:
                assert reply.status == 200, await reply.text()
                return reply.headers["x-call-id"]

        return [await one(run) for run in runs]


def test_the_program_accepts_the_file_and_names_what_is_missing() -> None:
    for more in ({}, SAMPLED | {"OTLP_SAMPLED_BACKEND": "http://127.0.0.1:1"}):
        said = validated(OTLP_BACKEND="http://127.0.0.1:1", **more)
        assert said.returncode == 0, said.stderr
    unset = validated()
    assert unset.returncode != 0
    assert "otlp_http/full" in unset.stderr
    assert "endpoint" in unset.stderr


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_every_span_arrives_after_an_outage_and_a_kill(tmp_path: Path, protocol: str) -> None:
    """The backend is down, the collector accepts and is killed, both come back: the set is whole."""
    receiver = OtlpReceiver().reserve_port()
    collector = Collector(tmp_path, OTLP_BACKEND=receiver.endpoint)
    endpoint = collector.endpoint if protocol == "http/protobuf" else collector.grpc_endpoint
    with collecting(collector):
        async with traced_proxy(tmp_path, endpoint, protocol=protocol) as proxy:
            made = await play(proxy)
            made += await _asked(proxy, [f"before-{number}" for number in range(20)])
            await _all_sent(proxy)
            assert not receiver.spans
            collector.kill9()
            # Nobody takes these now: they wait in the proxy's own store.
            made += await _asked(proxy, [f"meanwhile-{number}" for number in range(20)])
            await asyncio.to_thread(collector.start)
            receiver.script(Answer(status=503), Answer(status=429, headers={"retry-after": "1"}))
            with receiver:
                await _all_sent(proxy)
                whole = await asyncio.to_thread(
                    receiver.wait_until, lambda: set(made) <= _calls_among(receiver.spans.values()), 60
                )
                assert whole, set(made) - _calls_among(receiver.spans.values())
    assert len(made) == 44


async def test_the_sampled_copy_has_every_error_and_denial_and_a_share_of_whole_runs(tmp_path: Path) -> None:
    with OtlpReceiver() as full, OtlpReceiver() as sampled:
        collector = Collector(
            tmp_path, OTLP_BACKEND=full.endpoint, OTLP_SAMPLED_BACKEND=sampled.endpoint, **SAMPLED
        )
        spans = [
            Span(
                trace_id=run.to_bytes(16, "big"), span_id=(2 * run + which).to_bytes(8, "big"), name="chat m"
            )
            for run in range(1, 1_001)
            for which in (0, 1)
        ]
        failed, denied = spans[0::100], spans[1::100]
        for span in failed:
            span.status.code = span.status.STATUS_CODE_ERROR
        for span in denied:
            span.attributes.add(key="llm_proxy.decision").value.string_value = "deny"
        marked = {span.span_id for span in (*failed, *denied)}
        with collecting(collector):
            assert _post(collector, "/v1/traces", _sent(*spans)) == 200
            assert full.wait_for_spans(len(spans), 30)
            await until(lambda: collector.queued("otlp_http/sampled") == 0, "the sampled copy is sent")
            await until(lambda: marked <= set(sampled.spans), "what is marked is in the sampled copy")
    assert set(full.spans) == {span.span_id for span in spans}
    assert full.duplicates == 0
    assert not any("sampling.priority" in attributes_of(span) for span in full.spans.values())
    by_chance = [span for span in sampled.spans.values() if span.span_id not in marked]
    kept = {span.trace_id for span in by_chance}
    assert 50 <= len(kept) <= 150, f"{len(kept)} of 1,000 runs"
    whole = [span for span in spans if span.trace_id in kept]
    assert {span.span_id for span in whole} <= set(sampled.spans), "a run was kept in part"


async def test_a_sampled_backend_that_is_down_holds_nothing_up(tmp_path: Path) -> None:
    """Even once its queue is full: the full copy has everything, once, and the proxy nothing left to send."""
    small = "yaml:exporters::otlp_http/sampled::sending_queue::queue_size: 3700000"
    percent = {"OTELCOL_SAMPLED_PERCENT": "100", "OTLP_SAMPLED_BACKEND": "http://127.0.0.1:1"}
    with OtlpReceiver() as full:
        collector = Collector(tmp_path, small, OTLP_BACKEND=full.endpoint, **SAMPLED, **percent)
        with collecting(collector):
            for number in range(1, 13):
                span = Span(trace_id=b"t" * 16, span_id=number.to_bytes(8, "big"), name="large")
                span.attributes.add(key="x").value.string_value = "x" * 2**20
                assert _post(collector, "/v1/traces", _sent(span)) == 200
            assert full.wait_for_spans(12, 30)
            await until(lambda: "sending queue is full" in collector.log(), "the sampled queue is full")
            async with traced_proxy(tmp_path, collector.endpoint) as proxy:
                made = await _asked(proxy, ["a", "b", "c"])
                await _all_sent(proxy)
                whole = await asyncio.to_thread(
                    full.wait_until, lambda: set(made) <= _calls_among(full.spans.values()), 30
                )
                assert whole
    assert full.duplicates == 0


def test_metrics_and_logs_are_passed_on_and_large_requests_are_taken(tmp_path: Path) -> None:
    logs = ExportLogsServiceRequest()
    record = logs.resource_logs.add().scope_logs.add().log_records.add()
    record.body.string_value = "x" * 100
    spans = [Span(trace_id=b"t" * 16, span_id=number.to_bytes(8, "big")) for number in range(1, 33)]
    for span in spans:
        span.attributes.add(key="x").value.string_value = "x" * 2**20
    with Paths() as backend, collecting(Collector(tmp_path, OTLP_BACKEND=backend.endpoint)) as collector:
        assert _post(collector, "/v1/metrics", _one_metric()) == 200
        assert _post(collector, "/v1/logs", logs.SerializeToString()) == 200
        assert _post(collector, "/v1/traces", _sent(*spans)) == 200
        assert backend.wait_for("/v1/metrics", 1)
        assert backend.wait_for("/v1/logs", 100)
        assert backend.wait_for("/v1/traces", 32 * 2**20), backend.bytes
        assert backend.seen["/v1/traces"] >= 8, "a request over 4 MiB"


def test_metrics_and_logs_can_be_left_out_and_headers_are_sent(tmp_path: Path) -> None:
    """For Phoenix and Jaeger, which take neither and may want a token."""
    told = {
        "OTELCOL_METRICS_TO": "nop",
        "OTELCOL_LOGS_TO": "nop",
        "OTLP_HEADERS": "{authorization: Bearer T}",
    }
    with (
        OtlpReceiver() as backend,
        collecting(Collector(tmp_path, OTLP_BACKEND=backend.endpoint, **told)) as it,
    ):
        assert _post(it, "/v1/metrics", _one_metric()) == 200
        assert _post(it, "/v1/traces", _sent(Span(trace_id=b"t" * 16, span_id=b"s" * 8))) == 200
        assert backend.wait_for_spans(1, 30)
        it.stop()
        assert "404" not in it.log(), "metrics were sent to where there is no path for them"
    assert backend.request_headers[0]["authorization"] == "Bearer T"
