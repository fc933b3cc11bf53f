"""The receiver over gRPC: the same script and the same store of spans, told in gRPC's status codes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from tests.otlp_receiver import OtlpReceiver, bind_patiently

_CODES = {
    400: (grpc.StatusCode.INVALID_ARGUMENT, "odd span"),
    413: (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)"),
    429: (grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down"),
    503: (grpc.StatusCode.UNAVAILABLE, "later"),
}


class GrpcReceiver(OtlpReceiver):
    """Listens on 127.0.0.1 between `start` and `stop`, always on the same port."""

    def start(self) -> GrpcReceiver:
        self._released.clear()
        options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)]
        self._grpc = grpc.server(ThreadPoolExecutor(8), options=options)
        add_TraceServiceServicer_to_server(_Servicer(self), self._grpc)
        bind_patiently(self._bind)
        self._grpc.start()
        return self

    def _bind(self) -> None:
        try:
            self.port = self._grpc.add_insecure_port(f"127.0.0.1:{self.port}")
        except RuntimeError as error:
            raise OSError from error

    def stop(self) -> None:
        self._released.set()
        self._grpc.stop(0).wait()


class _Servicer(TraceServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        answer = self._receiver.receive(request, {}, request.ByteSize())
        if answer.hang or answer.close or answer.cut:
            context.abort(grpc.StatusCode.ABORTED, "gone")
        if after := answer.headers.get("retry-after"):
            delay = RetryInfo(retry_delay=Duration(nanos=int(float(after) * 1e9)))
            context.set_trailing_metadata((("google.rpc.retryinfo-bin", delay.SerializeToString()),))
        if answer.status in _CODES:
            context.abort(*_CODES[answer.status])
        return ExportTraceServiceResponse.FromString(answer.body)
