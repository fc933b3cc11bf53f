"""What a backend made of one export request, whatever the transport. Source: the OTLP specification, 1.9."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

REASON_CHARS = 300


@dataclass(frozen=True, slots=True)
class Accepted:
    """Every span was taken."""


@dataclass(frozen=True, slots=True)
class Partial:
    """Taken but for `rejected` spans; the backend doesn't say which."""

    rejected: int
    message: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Not taken, for a reason that may pass. `why` is short and in our words; `after_s` the server's wish."""

    why: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class TooLarge:
    message: str


@dataclass(frozen=True, slots=True)
class Invalid:
    """The backend calls the data itself wrong: the same request would be refused again."""

    message: str


Outcome = Accepted | Partial | Retry | TooLarge | Invalid


class Transport(Protocol):
    """Sends export requests. Messages in outcomes are the backend's words: kept, but never logged."""

    def send(self, request: ExportTraceServiceRequest) -> Outcome:
        """Blocks until answered or timed out. Raises nothing on a bad network or backend."""
        ...

    def abort(self) -> None:
        """From another thread: makes a `send` in progress end soon with `Retry`."""
        ...

    def close(self) -> None: ...


def told(response: ExportTraceServiceResponse) -> Outcome:
    """The outcome of an answer that said success, perhaps in part."""
    rejected = response.partial_success.rejected_spans
    return Partial(rejected, brief(response.partial_success.error_message)) if rejected > 0 else Accepted()


def brief(message: str) -> str:
    """A backend's message, short and on one line."""
    return " ".join(message.split())[:REASON_CHARS]
