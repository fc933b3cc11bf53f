"""Sending spans again: each outcome told, nothing waited for without end."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llm_proxy.telemetry.items import Item
from llm_proxy.telemetry.outcome import Accepted, Invalid, Outcome, Retry
from llm_proxy.telemetry.resend import RefusedSpan, Resender
from llm_proxy.telemetry.settings import SpanSettings
from tests.unit.telemetry_calls import plain_call, rich_call


class Backend:
    """A transport that answers by the spans' names and counts its requests."""

    def __init__(self, answer: Callable[[list[str]], Outcome]) -> None:
        self._answer = answer
        self.asked: list[list[str]] = []

    def send(self, request: ExportTraceServiceRequest) -> Outcome:
        names = [span.name for r in request.resource_spans for s in r.scope_spans for span in s.spans]
        self.asked.append(names)
        return self._answer(names)

    def abort(self) -> None: ...
    def close(self) -> None: ...


def resender(backend: Backend, sent: list[str], slept: list[float]) -> Resender:
    return Resender(
        backend,
        SpanSettings(),
        random=lambda: 0.5,
        sent=lambda item: sent.append(item.id),
        patience_s=1.0,
        sleep=slept.append,
    )


ITEMS = [Item(call=plain_call(11)), Item(call=rich_call()), Item(call=plain_call(12))]


def test_a_refused_span_is_told_and_the_others_are_sent() -> None:
    refused = Invalid("HTTP 400 odd")
    backend = Backend(lambda names: refused if "execute_tool close_issue" in names else Accepted())
    sent, slept = list[str](), list[float]()
    told = resender(backend, sent, slept).send([ITEMS])
    assert (told.items, told.spans, told.unsent) == (3, 4, "")
    assert told.refused == [RefusedSpan(rich_call().id, "execute_tool close_issue", "Invalid: HTTP 400 odd")]
    assert sent == [plain_call(11).id, plain_call(12).id], "one whose span was refused is not settled"
    assert not told.well


def test_a_backend_that_is_down_is_given_up() -> None:
    backend = Backend(lambda _: Retry("HTTP 503", 5.0))
    sent, slept = list[str](), list[float]()
    told = resender(backend, sent, slept).send([ITEMS, ITEMS])
    assert (told.spans, told.unsent) == (0, "HTTP 503")
    assert len(backend.asked) == 1
    assert (sent, slept) == ([], []), "it asked for more time than there is"


def test_a_passing_fault_is_waited_for() -> None:
    faults = [Retry("HTTP 503"), Retry("TimeoutError")]
    backend = Backend(lambda _: faults.pop() if faults else Accepted())
    sent, slept = list[str](), list[float]()
    told = resender(backend, sent, slept).send([ITEMS])
    assert (told.items, told.spans, told.well, len(slept)) == (3, 5, True, 2)


def test_a_call_that_no_span_can_tell_is_told_too() -> None:
    odd = Item(call=msgspec.structs.replace(plain_call(3), total_s=float("nan")))
    told = resender(Backend(lambda _: Accepted()), [], []).send([[odd, *ITEMS]])
    assert told.refused == [RefusedSpan(plain_call(3).id, "", "no span could be built: ValueError")]
    assert told.spans == 5
