"""A tiny OTLP/HTTP receiver: keeps what comes, answers 200, and counts spans when asked.

`python -m bench.sink --port P`. Batches are unpacked only at `GET /stats`, which the benchmark asks between
measurements: on a real system the backend's work is some other machine's.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Iterator

import msgspec
import uvloop
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.http1 import Request, ServerConnection, serve


class SpanCount(msgspec.Struct):
    """Batches and spans received; `duplicates` are spans whose id had come before."""

    batches: int = 0
    spans: int = 0
    duplicates: int = 0


class SpanCounter:
    """Holds packed batches until they are counted. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._seen: set[bytes] = set()
        self._count = SpanCount()

    def add(self, batch: bytes) -> None:
        self._waiting.append(batch)

    def count(self) -> SpanCount:
        """Count everything received so far. Raises on a batch that isn't OTLP."""
        for batch in self._waiting:
            self._count.batches += 1
            for span_id in _span_ids(batch):
                self._count.spans += 1
                self._count.duplicates += span_id in self._seen
                self._seen.add(span_id)
        self._waiting.clear()
        return self._count


def _span_ids(batch: bytes) -> Iterator[bytes]:
    plain = gzip.decompress(batch) if batch.startswith(b"\x1f\x8b") else batch
    for resource in ExportTraceServiceRequest.FromString(plain).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield span.span_id


class SinkConnection(ServerConnection):
    def __init__(self, counter: SpanCounter) -> None:
        super().__init__()
        self._counter = counter

    def answer(self, request: Request) -> None:
        if request.target == b"/v1/traces":
            self._counter.add(request.body)
            self.reply(200, b"", b"application/x-protobuf")
        elif request.target in (b"/v1/metrics", b"/v1/logs"):
            self.reply(200, b"", b"application/x-protobuf")
        elif request.target == b"/stats":
            self.reply(200, msgspec.json.encode(self._counter.count()))
        elif request.target == b"/health/ready":
            self.reply(200, b"{}")
        else:
            self.reply(404, b"unknown path", b"text/plain")


def main() -> None:
    parser = argparse.ArgumentParser(description="OTLP/HTTP receiver that counts spans")
    parser.add_argument("--port", type=int, required=True)
    port: int = parser.parse_args().port
    counter = SpanCounter()
    uvloop.run(serve(lambda: SinkConnection(counter), port))


if __name__ == "__main__":
    main()
