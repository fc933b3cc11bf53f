"""What each transport makes of answers, and that neither waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from http.client import HTTPMessage
from urllib.parse import urlsplit

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from llm_proxy.telemetry.outcome import Accepted, Invalid, Outcome, Partial, Retry, TooLarge, Transport
from llm_proxy.telemetry.transport import (
    HttpTransport,
    headers_from,
    judge,
    open_transport,
    retry_after_s,
    traces_path,
)
from tests.otlp_receiver import Answer, OtlpReceiver

PROTOBUF = "application/x-protobuf"


def request(names: list[str]) -> ExportTraceServiceRequest:
    spans = [Span(name=name, span_id=name.encode().rjust(8)) for name in names]
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])


def answer(status: int, kind: str = "", data: bytes = b"", **headers: str) -> Outcome:
    told: Message = HTTPMessage()
    if kind:
        told["content-type"] = kind
    for key, value in headers.items():
        told[key.replace("_", "-")] = value
    assert isinstance(told, HTTPMessage)
    return judge(status, told, data)


def in_part(rejected: int, message: str) -> bytes:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = rejected
    response.partial_success.error_message = message
    return response.SerializeToString()


@pytest.mark.parametrize(
    ("got", "outcome"),
    [
        (answer(200, PROTOBUF), Accepted()),
        (answer(200, PROTOBUF, in_part(2, "too\n old")), Partial(2, "too old")),
        (answer(200, PROTOBUF, in_part(0, "a warning")), Accepted()),
        (answer(200, PROTOBUF, b"\xff\xff"), Retry("unreadable answer")),
        (answer(200, "application/json", b"{}"), Accepted()),
        (
            answer(
                200, "application/json", b'{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "x"}}'
            ),
            Partial(3, "x"),
        ),
        (answer(200, "application/json", b"thanks"), Retry("unreadable answer")),
        (answer(200, "text/html", b"<html>log in</html>"), Retry("answered with a web page")),
        (answer(200, "text/plain", b"thanks"), Accepted()),
        (answer(204), Accepted()),
        (
            answer(400, PROTOBUF, Status(message="no such field").SerializeToString()),
            Invalid("HTTP 400 no such field"),
        ),
        (answer(422, "text/plain", b"odd  span"), Invalid("HTTP 422 odd span")),
        (answer(413, "text/plain", b"x" * 999), TooLarge("HTTP 413 " + "x" * 291)),
        (answer(401), Retry("HTTP 401")),
        (answer(404), Retry("HTTP 404")),
        (answer(500), Retry("HTTP 500")),
        (answer(503, retry_after="7"), Retry("HTTP 503", 7.0)),
    ],
)
def test_what_an_answer_means(got: Outcome, outcome: Outcome) -> None:
    assert got == outcome


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after_s("1.5", 0) == 1.5
    assert retry_after_s("-3", 0) == 0
    assert retry_after_s("Fri, 20 Nov 2026 12:00:30 GMT", 1795176000.0) == 30
    assert retry_after_s("soon", 0) is None
    assert retry_after_s(None, 0) is None


def test_headers_come_from_the_environment() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20abc, x-team = a=b",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-team=traces",
    }
    assert headers_from(environ) == {"authorization": "Bearer abc", "x-team": "traces"}
    assert headers_from({}) == {}


@pytest.mark.parametrize("value", ["s3cret", "=s3cret", "k=s3cret%0d%0aInjected: 1"])
def test_bad_headers_are_refused_without_telling_them(value: str) -> None:
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_HEADERS") as refused:
        headers_from({"OTEL_EXPORTER_OTLP_HEADERS": value})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("http://h:4318", "/v1/traces"),
        ("http://h:4318/", "/v1/traces"),
        ("https://h/otlp/", "/otlp/v1/traces"),
        ("https://h/api/v1/traces", "/api/v1/traces"),
        ("https://h/otlp?tenant=a", "/otlp/v1/traces?tenant=a"),
    ],
)
def test_the_path_under_an_endpoint(endpoint: str, path: str) -> None:
    assert traces_path(urlsplit(endpoint)) == path


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_address_that_is_none_is_refused_without_telling_it(protocol: str) -> None:
    with pytest.raises(ValueError, match=r"telemetry\.otlp_endpoint") as refused:
        open_transport("ftp://user:s3cret@host", protocol, {})
    assert "s3cret" not in str(refused.value)


def test_one_connection_is_kept_and_a_stale_one_replaced() -> None:
    with OtlpReceiver() as receiver:
        transport = HttpTransport(receiver.endpoint, {})
        assert [transport.send(request(["a"])) for _ in range(3)] == [Accepted()] * 3
        receiver.stop()
        receiver.start()
        assert transport.send(request(["b"])) == Accepted(), "closed while idle: tried again at once"
        receiver.script(Answer(headers={"connection": "close"}, store=True))
        assert [transport.send(request(["c"])) for _ in range(2)] == [Accepted()] * 2
        receiver.stop()
        assert transport.send(request(["d"])) == Retry("ConnectionRefusedError")
        transport.close()


def test_a_send_that_hangs_times_out_or_is_aborted() -> None:
    with OtlpReceiver() as receiver:
        receiver.script(Answer(hang=True), Answer(hang=True))
        quick = HttpTransport(receiver.endpoint, {}, timeout_s=0.1)
        assert quick.send(request(["a"])) == Retry("TimeoutError")
        patient = HttpTransport(receiver.endpoint, {}, timeout_s=60)
        outcome = _aborted(patient, lambda: receiver.wait_until(lambda: len(receiver.requests) == 2))
        assert isinstance(outcome, Retry)
        assert patient.send(request(["b"])) == Retry("ConnectionAbortedError")


def _aborted(transport: Transport, arrived: Callable[[], bool]) -> Outcome:
    """What `send` gives where `abort` is called once the request has `arrived`."""
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(transport.send, request(["hang"]))
        assert arrived()
        transport.abort()
        return sending.result(5)


class Servicer(TraceServiceServicer):
    """Answers by the name of the first span."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.arrived = threading.Event()
        self.released = threading.Event()

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        self.metadata = {str(k): str(v) for k, v in context.invocation_metadata()}
        self.arrived.set()
        response = ExportTraceServiceResponse()
        match request.resource_spans[0].scope_spans[0].spans[0].name:
            case "invalid":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "odd span")
            case "busy":
                delay = RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
                context.set_trailing_metadata((("google.rpc.retryinfo-bin", delay.SerializeToString()),))
                context.abort(grpc.StatusCode.UNAVAILABLE, "later")
            case "login":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")
            case "partial":
                response.partial_success.rejected_spans = 1
            case "hang":
                self.released.wait(10)
            case _:
                pass
        return response


@pytest.fixture
def service() -> Iterator[tuple[Servicer, str]]:
    servicer = Servicer()
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", 20_000)])
    add_TraceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"http://127.0.0.1:{port}"
    servicer.released.set()
    server.stop(0).wait()


def test_grpc_answers_mean_the_same(service: tuple[Servicer, str]) -> None:
    servicer, endpoint = service
    transport = open_transport(endpoint, "grpc", {"X-Key": "s3cret"})
    assert transport.send(request(["ok"])) == Accepted()
    assert servicer.metadata["x-key"] == "s3cret"
    assert transport.send(request(["partial"])) == Partial(1, "")
    assert transport.send(request(["invalid"])) == Invalid("gRPC INVALID_ARGUMENT odd span")
    assert transport.send(request(["busy"])) == Retry("gRPC UNAVAILABLE", 2.5)
    assert transport.send(request(["login"])) == Retry("gRPC UNAUTHENTICATED")
    assert isinstance(transport.send(request([str(n) * 99 for n in range(999)])), TooLarge)
    transport.close()


def test_grpc_times_out_and_can_be_aborted(service: tuple[Servicer, str]) -> None:
    servicer, endpoint = service
    quick = open_transport(endpoint, "grpc", {}, timeout_s=0.1)
    assert quick.send(request(["hang"])) == Retry("gRPC DEADLINE_EXCEEDED")
    quick.close()
    servicer.arrived.clear()
    patient = open_transport(endpoint, "grpc", {}, timeout_s=60)
    outcome = _aborted(patient, lambda: servicer.arrived.wait(5))
    assert outcome == Retry("gRPC CANCELLED")
    assert patient.send(request(["ok"])) == Retry("stopping")
    patient.close()
