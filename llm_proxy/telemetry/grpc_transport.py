"""OTLP over gRPC. Imported only where it is asked for: the grpc package takes 16 MB. Source: OTLP 1.9."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Protocol, cast
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from llm_proxy.telemetry.outcome import Invalid, Outcome, Retry, TooLarge, brief, told

_RETRY_INFO = "google.rpc.retryinfo-bin"


class _StatusCode(Protocol):
    name: str


class _Pending(Protocol):
    """The part of grpc's future that is used; the package has no types of its own."""

    def result(self) -> ExportTraceServiceResponse: ...
    def cancel(self) -> bool: ...
    def code(self) -> _StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Sequence[tuple[str, str | bytes]] | None: ...


class _Export(Protocol):
    def future(
        self,
        request: ExportTraceServiceRequest,
        *,
        timeout: float,
        metadata: Sequence[tuple[str, str]],
    ) -> _Pending: ...


class GrpcTransport:
    """One channel, used by one thread; only `abort` may be called from another."""

    def __init__(self, endpoint: str, headers: Mapping[str, str], *, timeout_s: float = 10.0) -> None:
        url = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("telemetry.otlp_endpoint: expected an address such as http://127.0.0.1:4317")
        self._metadata = tuple((k.lower(), v) for k, v in headers.items())
        self._timeout_s = timeout_s
        self._channel = _channel(url.netloc.rpartition("@")[2], secure=url.scheme == "https")
        stub = TraceServiceStub(self._channel)
        self._export = cast(_Export, stub.Export)  # pyright: ignore[reportUnknownMemberType]
        self._pending: _Pending | None = None
        self._lock = threading.Lock()
        self._aborted = False

    def send(self, request: ExportTraceServiceRequest) -> Outcome:
        with self._lock:
            if self._aborted:
                return Retry("stopping")
            pending = self._export.future(request, timeout=self._timeout_s, metadata=self._metadata)
            self._pending = pending
        try:
            return told(pending.result())
        except (grpc.RpcError, grpc.FutureCancelledError):
            return _judge(pending)
        finally:
            self._pending = None

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            pending = self._pending
        if pending is not None:
            pending.cancel()

    def close(self) -> None:
        self._channel.close()


def _channel(target: str, *, secure: bool) -> grpc.Channel:
    # The exporter's own backoff decides when to try; the channel's longer one would answer from memory.
    options = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000))
    packed = grpc.Compression.Gzip
    if secure:
        identity = grpc.ssl_channel_credentials()
        return grpc.secure_channel(target, identity, options=options, compression=packed)
    return grpc.insecure_channel(target, options=options, compression=packed)


def _judge(failed: _Pending) -> Outcome:
    """INVALID_ARGUMENT and a message over the server's limit are about the data; all else may pass."""
    code, details = failed.code().name, failed.details() or ""
    match code:
        case "INVALID_ARGUMENT":
            return Invalid(brief(f"gRPC {code} {details}"))
        case "RESOURCE_EXHAUSTED" if "larger than max" in details:
            return TooLarge(brief(f"gRPC {code} {details}"))
        case _:
            return Retry(f"gRPC {code}", _retry_after_s(failed))


def _retry_after_s(failed: _Pending) -> float | None:
    for key, value in failed.trailing_metadata() or ():
        if key == _RETRY_INFO and isinstance(value, bytes):
            try:
                delay = RetryInfo.FromString(value).retry_delay
            except DecodeError:
                return None
            return delay.seconds + delay.nanos / 1e9
    return None
