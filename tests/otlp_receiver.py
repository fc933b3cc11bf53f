"""A real OTLP/HTTP receiver for tests: keeps spans by id, and answers badly where a script says so."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import cast

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Answer:
    """What one request gets. `store` keeps its spans, `hang` says nothing until `stop`, `close` hangs up.

    `keep` stores the first so many of the spans only, `slow_s` waits before it answers, and `cut` hangs up
    within the answer's body.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    store: bool = False
    hang: bool = False
    close: bool = False
    keep: int = 0
    slow_s: float = 0.0
    cut: bool = False


OK = Answer(store=True, headers={"content-type": "application/x-protobuf"})


def partial(rejected: int, message: str = "rejected by the test") -> Answer:
    """Success that kept none of `rejected` spans."""
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = rejected
    response.partial_success.error_message = message
    return Answer(headers={"content-type": "application/x-protobuf"}, body=response.SerializeToString())


Rule = Callable[[list[Span]], "Answer | None"]


class OtlpReceiver:
    """Listens on 127.0.0.1 between `start` and `stop`, always on the same port.

    Each request gets the next scripted answer, else what `rule` says of its spans, else `OK`.
    """

    def __init__(self) -> None:
        self.port = 0
        self.spans: dict[bytes, Span] = {}
        self.seen: Counter[bytes] = Counter()
        """How many times each span id was accepted."""
        self.variants: dict[bytes, Counter[bytes]] = {}
        """By span id the encodings in which it was accepted, each with how many times."""
        self.requests: list[Answer] = []
        """The answer that each request got."""
        self.request_headers: list[dict[str, str]] = []
        self.request_sizes: list[int] = []
        """Length of each body, unpacked."""
        self.resources: list[Resource] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.rule: Rule | None = None
        self._script: deque[Answer] = deque()
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, *answers: Answer) -> None:
        """Answers for the next requests, in order."""
        with self._changed:
            self._script.extend(answers)

    def start(self) -> OtlpReceiver:
        self._released.clear()
        self._server = _Server(self.port, self)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Closes the port and every connection. `start` opens the same port again."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._released.set()
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()
        self._server = self._thread = None

    def reserve_port(self) -> OtlpReceiver:
        """Takes a port and stays down: `endpoint` is known before anything listens there."""
        self.start()
        self.stop()
        return self

    def __enter__(self) -> OtlpReceiver:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def duplicates(self) -> int:
        """Spans accepted more than once, each repeat counted."""
        return sum(self.seen.values()) - len(self.seen)

    def wait_for_spans(self, count: int, timeout_s: float = 10.0) -> bool:
        return self.wait_until(lambda: len(self.spans) >= count, timeout_s)

    def wait_until(self, holds: Callable[[], bool], timeout_s: float = 10.0) -> bool:
        """Waits until `holds`, asked after every request, or the time is up. True where it holds."""
        with self._changed:
            return self._changed.wait_for(holds, timeout_s)

    def measure(self, request: ExportMetricsServiceRequest) -> None:
        with self._changed:
            self.metrics.append(request)
            self._changed.notify_all()

    def receive(self, request: ExportTraceServiceRequest, headers: dict[str, str], size: int) -> Answer:
        spans = [s for r in request.resource_spans for scoped in r.scope_spans for s in scoped.spans]
        with self._changed:
            answer = self._script.popleft() if self._script else (self.rule(spans) if self.rule else None)
            answer = answer or OK
            if answer.store or answer.keep:
                self.resources.extend(r.resource for r in request.resource_spans)
                for span in spans if answer.store else spans[: answer.keep]:
                    self.spans[span.span_id] = span
                    self.seen[span.span_id] += 1
                    self.variants.setdefault(span.span_id, Counter())[encoded(span)] += 1
            self.requests.append(answer)
            self.request_headers.append(headers)
            self.request_sizes.append(size)
            self._changed.notify_all()
        if answer.hang or answer.slow_s:
            self._released.wait(30 if answer.hang else answer.slow_s)
        return answer


def encoded(span: Span) -> bytes:
    return span.SerializeToString(deterministic=True)


def attributes_of(span: Span | Span.Event) -> dict[str, str | int | float | bool | list[str]]:
    """A span's or event's attributes as plain values; text arrays as lists."""
    told: dict[str, str | int | float | bool | list[str]] = {}
    for pair in span.attributes:
        kind = pair.value.WhichOneof("value")
        if kind == "array_value":
            told[pair.key] = [v.string_value for v in pair.value.array_value.values]
        else:
            told[pair.key] = cast("str | int | float | bool", getattr(pair.value, str(kind)))
    return told


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, receiver: OtlpReceiver) -> None:
        self.receiver = receiver
        self.open: set[socket.socket] = set()
        bind_patiently(lambda: ThreadingHTTPServer.__init__(self, ("127.0.0.1", port), _Handler))

    def hang_up(self) -> None:
        for sock in list(self.open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                self.open.discard(sock)


def bind_patiently(bind: Callable[[], None]) -> None:
    """A reserved port may be somebody's outgoing port for a moment."""
    for _ in range(50):
        try:
            return bind()
        except OSError:
            time.sleep(0.1)
    return bind()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def ours(self) -> _Server:
        return cast(_Server, self.server)

    def setup(self) -> None:
        super().setup()
        self.ours.open.add(self.connection)

    def finish(self) -> None:
        self.ours.open.discard(self.connection)
        super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        headers = {k.lower(): v for k, v in self.headers.items()}
        if self.path == "/v1/metrics":
            self.ours.receiver.measure(ExportMetricsServiceRequest.FromString(body))
            return self._say(OK)
        if self.path != "/v1/traces":
            return self._say(Answer(status=404))
        return self._say(
            self.ours.receiver.receive(ExportTraceServiceRequest.FromString(body), headers, len(body))
        )

    def _say(self, answer: Answer) -> None:
        if answer.hang or answer.close:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("content-length", str(len(answer.body) + 100 * answer.cut))
        self.end_headers()
        self.wfile.write(answer.body)
        self.close_connection = self.close_connection or answer.cut

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        """Tests say what they need themselves."""
