"""OTLP over HTTP with protobuf bodies, gzip and one kept connection. Source: OTLP 1.9, "OTLP/HTTP"."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPSConnection
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from llm_proxy.telemetry.outcome import (
    Accepted,
    Invalid,
    Outcome,
    Partial,
    Retry,
    TooLarge,
    Transport,
    brief,
    told,
)

_PROTOBUF = "application/x-protobuf"
_ANSWER_BYTES = 256 * 1024


def open_transport(
    endpoint: str, protocol: str, headers: Mapping[str, str], *, timeout_s: float = 10.0
) -> Transport:
    """The transport for `protocol`: `http/protobuf` or `grpc`. Nothing is contacted yet."""
    if protocol == "grpc":
        # 16 MB of memory that only this protocol needs.
        from llm_proxy.telemetry.grpc_transport import GrpcTransport  # noqa: PLC0415

        return GrpcTransport(endpoint, headers, timeout_s=timeout_s)
    return HttpTransport(endpoint, headers, timeout_s=timeout_s)


def headers_from(environ: Mapping[str, str], signal: str = "TRACES") -> dict[str, str]:
    """`$OTEL_EXPORTER_OTLP_HEADERS`, and over it those of the signal, `$OTEL_EXPORTER_OTLP_TRACES_HEADERS`.

    Written `k=v,k2=v2`, values URL-encoded. Raises ValueError, which names the variable and never its value,
    where an entry has no `=`.
    """
    headers: dict[str, str] = {}
    for name in ("OTEL_EXPORTER_OTLP_HEADERS", f"OTEL_EXPORTER_OTLP_{signal}_HEADERS"):
        for entry in filter(None, map(str.strip, environ.get(name, "").split(","))):
            key, equals, value = entry.partition("=")
            clean = unquote(value).strip()
            if not equals or not key.strip() or not clean.isprintable():
                raise ValueError(f"${name}: expected key=value pairs separated by commas, values URL-encoded")
            headers[unquote(key).strip().lower()] = clean
    return headers


class HttpTransport:
    """One connection, used by one thread; only `abort` may be called from another."""

    def __init__(
        self, endpoint: str, headers: Mapping[str, str], *, timeout_s: float = 10.0, connect_s: float = 3.0
    ) -> None:
        url = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("telemetry.otlp_endpoint: expected an address such as http://127.0.0.1:4318")
        self._url = url
        self._path = traces_path(url)
        self._headers = {**headers, "content-type": _PROTOBUF, "content-encoding": "gzip"}
        self._timeout_s, self._connect_s = timeout_s, connect_s
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._connection: HTTPConnection | None = None
        self._lock = threading.Lock()
        self._aborted = False

    def send(self, request: ExportTraceServiceRequest) -> Outcome:
        body = gzip.compress(request.SerializeToString(), compresslevel=1, mtime=0)
        reused = self._connection is not None
        try:
            return self._post(body)
        except (OSError, HTTPException) as error:
            self.close()
            # A kept connection that the server closed while idle says nothing of the server.
            if not reused or isinstance(error, TimeoutError):
                return Retry(type(error).__name__)
        try:
            return self._post(body)
        except (OSError, HTTPException) as error:
            self.close()
            return Retry(type(error).__name__)

    def _post(self, body: bytes) -> Outcome:
        connection = self._connected()
        connection.request("POST", self._path, body, self._headers)
        answer = connection.getresponse()
        data = answer.read(_ANSWER_BYTES)
        if not answer.isclosed():
            self.close()
        return judge(answer.status, answer.headers, data)

    def _connected(self) -> HTTPConnection:
        # A connection that the server asked to close has no socket left.
        if self._connection is not None and self._connection.sock is not None:
            return self._connection
        host, port = self._url.hostname or "", self._url.port
        if self._tls is not None:
            connection: HTTPConnection = HTTPSConnection(
                host, port, timeout=self._connect_s, context=self._tls
            )
        else:
            connection = HTTPConnection(host, port, timeout=self._connect_s)
        connection.connect()
        connection.sock.settimeout(self._timeout_s)
        with self._lock:
            if self._aborted:
                connection.close()
                raise ConnectionAbortedError("the exporter is stopping")
            self._connection = connection
        return connection

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            connection = self._connection
        if connection is not None and (sock := connection.sock) is not None:
            with contextlib.suppress(OSError):  # It may have ended by itself meanwhile.
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def traces_path(url: SplitResult) -> str:
    """The signal's path under a base endpoint, as OpenTelemetry's exporters build it."""
    path = url.path.rstrip("/")
    path = path if path.endswith("/v1/traces") else f"{path}/v1/traces"
    return f"{path}?{url.query}" if url.query else path


def judge(status: int, headers: HTTPMessage, data: bytes) -> Outcome:
    """What an answer means. Only 400, 413 and 422 are about the data.

    Any other refusal (401, 403, 404 …) is about how the two sides are set up, which a person can mend, so
    nothing is given up for it.
    """
    kind = headers.get_content_type()
    match status:
        case 200 | 202 | 204:
            return _success(kind, data)
        case 413:
            return TooLarge(_reason(status, kind, data))
        case 400 | 422:
            return Invalid(_reason(status, kind, data))
        case _:
            return Retry(f"HTTP {status}", retry_after_s(headers.get("retry-after"), time.time()))


class _PartialJson(msgspec.Struct, rename="camel"):
    rejected_spans: int | str = 0
    error_message: str = ""


class _AnswerJson(msgspec.Struct, rename="camel"):
    partial_success: _PartialJson | None = None


def _success(kind: str, data: bytes) -> Outcome:
    try:
        if kind == _PROTOBUF:
            return told(ExportTraceServiceResponse.FromString(data))
        if kind == "application/json" and data:
            partial = msgspec.json.decode(data, type=_AnswerJson).partial_success or _PartialJson()
            rejected = int(partial.rejected_spans)
            return Partial(rejected, brief(partial.error_message)) if rejected > 0 else Accepted()
    except (DecodeError, msgspec.MsgspecError, ValueError):
        # Nobody who took the spans says so like this: it's a broken answer, or a repeat does no harm.
        return Retry("unreadable answer")
    # A page is what a login or a wrong address shows. Else success may be said in any form.
    return Retry("answered with a web page") if kind == "text/html" else Accepted()


def _reason(status: int, kind: str, data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    if kind == _PROTOBUF:
        try:
            text = Status.FromString(data).message
        except DecodeError:
            text = ""
    return brief(f"HTTP {status} {text}")


def retry_after_s(value: str | None, now: float) -> float | None:
    """Seconds that a `Retry-After` asks for, given as seconds or as an HTTP date; None where unreadable."""
    if not value:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - now, 0.0)
    except ValueError:
        return None
