"""The exporter against a real receiver: every fault ends with every span there, once, dead letters told."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llm_proxy.records.view import CallView
from llm_proxy.telemetry.ids import span_id_of
from llm_proxy.telemetry.items import Backlog, Batch, Item
from llm_proxy.telemetry.metrics import Metrics
from llm_proxy.telemetry.outbox import OutboxExporter
from llm_proxy.telemetry.pace import OutboxLimits
from llm_proxy.telemetry.settings import SpanSettings
from llm_proxy.telemetry.transport import HttpTransport
from tests.otlp_receiver import OK, Answer, OtlpReceiver, attributes_of, partial
from tests.unit.telemetry_calls import plain_call

QUICK = OutboxLimits(max_share=1.0, idle_s=0.02, retry_first_s=0.01, retry_most_s=0.05)


class MemorySource:
    """An outbox in memory: a list, a cursor into it, and the dead letters."""

    def __init__(self, calls: list[CallView] | None = None) -> None:
        self.calls = calls or []
        self.cursor = 0
        self.dead: dict[str, str] = {}
        self.fail_reads = 0
        self.reads = 0
        self.done = threading.Condition()

    def next(self, limit: int) -> Batch | None:
        self.reads += 1
        if self.fail_reads:
            self.fail_reads -= 1
            raise ConnectionError("the store is down; row: secret")
        taken = tuple(self.calls[self.cursor : self.cursor + limit])
        return Batch(tuple(Item(call=call) for call in taken), self.cursor + len(taken)) if taken else None

    def advance(self, cursor: object) -> None:
        assert isinstance(cursor, int)
        with self.done:
            self.cursor = cursor
            self.done.notify_all()

    def dead_letter(self, item: Item, reason: str) -> None:
        self.dead.setdefault(item.id, reason)

    def backlog(self) -> Backlog:
        unsent = self.calls[self.cursor :]
        return Backlog(len(unsent), unsent[0].started_us if unsent else None)

    def wait_empty(self, timeout_s: float = 10.0) -> bool:
        with self.done:
            return self.done.wait_for(lambda: self.cursor == len(self.calls), timeout_s)


@contextmanager
def exporting(
    source: MemorySource,
    receiver: OtlpReceiver,
    *,
    limits: OutboxLimits = QUICK,
    metrics: Metrics | None = None,
    timeout_s: float = 5.0,
) -> Generator[OutboxExporter]:
    exporter = OutboxExporter(
        source,
        HttpTransport(receiver.endpoint, {"x-key": "s3cret"}, timeout_s=timeout_s),
        SpanSettings(),
        metrics or Metrics(),
        clock=time.time,
        random=lambda: 0.5,
        limits=limits,
    )
    exporter.start()
    try:
        yield exporter
    finally:
        assert exporter.stop(0.5)


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as up:
        yield up


def some_calls(count: int) -> list[CallView]:
    return [plain_call(n) for n in range(count)]


def ids(calls: list[CallView]) -> set[bytes]:
    return {span_id_of(call.id) for call in calls}


def test_a_backend_that_was_down_for_the_whole_run_gets_every_span_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = OtlpReceiver().reserve_port()
    source = MemorySource()
    metrics = Metrics(worker="1")
    with caplog.at_level(logging.INFO), exporting(source, receiver, metrics=metrics):
        for call in some_calls(300):
            source.calls.append(call)
        assert not source.wait_empty(0.2)
        assert source.cursor == 0
        assert source.reads > 1, "nothing is held back from another process that could take over"
        receiver.start()
        assert source.wait_empty()
    receiver.stop()
    assert set(receiver.spans) == ids(source.calls)
    assert receiver.duplicates == 0
    assert source.dead == {}
    text = metrics.render().decode()
    assert 'llm_proxy_otlp_spans_total{llm_proxy_worker="1",outcome="accepted"} 300.0' in text
    assert 'llm_proxy_otlp_retries_total{llm_proxy_worker="1",why="ConnectionRefusedError"}' in text
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"], "one line per change, not per try"


@pytest.mark.parametrize(
    "fault",
    [
        Answer(status=503),
        Answer(status=429, headers={"retry-after": "0.02"}),
        Answer(status=401),
        Answer(status=404),
        Answer(status=302, headers={"location": "/elsewhere"}),
        Answer(close=True),
        Answer(hang=True),
        partial(3),
        Answer(status=400),
        Answer(status=413),
    ],
    ids=lambda a: (
        "hang" if a.hang else "close" if a.close else str(a.status) + ("-partial" if a.body else "")
    ),
)
def test_after_a_passing_fault_every_span_is_there_once(fault: Answer, receiver: OtlpReceiver) -> None:
    receiver.script(fault, fault)
    source = MemorySource(some_calls(40))
    # Long for an answer that is on its way: spans whose answer came too late would be sent twice.
    with exporting(source, receiver, timeout_s=1.0):
        assert source.wait_empty()
    assert set(receiver.spans) == ids(source.calls)
    assert receiver.duplicates == 0
    assert source.dead == {}


def test_every_fault_in_turn_and_a_while_down(receiver: OtlpReceiver) -> None:
    faults = [Answer(status=503), Answer(hang=True), Answer(close=True), partial(2), Answer(status=413)]
    receiver.script(*faults, Answer(status=400), OK, *faults)
    source = MemorySource(some_calls(200))
    with exporting(source, receiver, timeout_s=0.2):
        assert receiver.wait_until(lambda: len(receiver.requests) >= 8)
        receiver.stop()
        source.calls.extend(plain_call(n) for n in range(200, 300))
        receiver.start()
        assert source.wait_empty()
    assert set(receiver.spans) == ids(source.calls)
    for call in source.calls:
        trimmed = "llm_proxy.content.reference" in attributes_of(receiver.spans[span_id_of(call.id)])
        assert trimmed is (call.id in source.dead), "whole, or trimmed and accounted for"


def test_an_answer_lost_on_the_way_repeats_the_same_ids(receiver: OtlpReceiver) -> None:
    receiver.script(Answer(store=True, close=True))
    source = MemorySource(some_calls(5))
    with exporting(source, receiver):
        assert source.wait_empty()
    assert set(receiver.spans) == ids(source.calls)
    assert receiver.duplicates == 5


@pytest.mark.parametrize("refusal", [Answer(status=400, body=b"bad span"), Answer(status=413), partial(1)])
def test_a_span_that_is_always_refused_is_found_trimmed_and_accounted_for(
    refusal: Answer, receiver: OtlpReceiver
) -> None:
    source = MemorySource(some_calls(50))
    culprit = source.calls[23]

    def refuse(spans: list[Span]) -> Answer | None:
        whole = [
            s
            for s in spans
            if s.span_id == span_id_of(culprit.id) and "gen_ai.input.messages" in attributes_of(s)
        ]
        return refusal if whole else None

    receiver.rule = refuse
    metrics = Metrics(worker="1")
    with exporting(source, receiver, metrics=metrics):
        assert source.wait_empty()
    assert set(receiver.spans) == ids(source.calls)
    assert receiver.duplicates == 0
    assert set(source.dead) == {culprit.id}
    told = attributes_of(receiver.spans[span_id_of(culprit.id)])
    assert told["llm_proxy.content.reference"] == culprit.id
    assert 'outcome="dead_lettered"} 1.0' in metrics.render().decode()


def test_a_span_refused_even_without_content_holds_up_nothing(receiver: OtlpReceiver) -> None:
    source = MemorySource(some_calls(20))
    culprit = span_id_of(source.calls[0].id)
    receiver.rule = lambda spans: Answer(status=400) if any(s.span_id == culprit for s in spans) else None
    with exporting(source, receiver):
        assert source.wait_empty()
    assert set(receiver.spans) == ids(source.calls[1:])
    assert list(source.dead) == [source.calls[0].id]


def test_a_call_that_no_span_can_tell_is_a_dead_letter(receiver: OtlpReceiver) -> None:
    odd = msgspec.structs.replace(plain_call(3), total_s=float("nan"))
    source = MemorySource([*some_calls(3), odd, plain_call(4)])
    with exporting(source, receiver):
        assert source.wait_empty()
    assert len(receiver.spans) == 4
    assert source.dead == {odd.id: "no span could be built: ValueError"}


def test_requests_stay_under_their_size(receiver: OtlpReceiver) -> None:
    source = MemorySource(some_calls(100))
    limits = replace(QUICK, request_bytes=8_000)
    with exporting(source, receiver, limits=limits):
        assert source.wait_empty()
    assert set(receiver.spans) == ids(source.calls)
    assert max(receiver.request_sizes) < 8_000 + 300
    assert len(receiver.requests) > 5


def test_a_store_that_fails_is_asked_again_and_its_words_are_not_logged(
    receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    source = MemorySource(some_calls(3))
    source.fail_reads = 3
    with exporting(source, receiver):
        assert source.wait_empty()
    assert len(receiver.spans) == 3
    assert "ConnectionError" in caplog.text
    assert "secret" not in caplog.text


def test_headers_resource_and_no_secret_in_the_log(
    receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.script(Answer(status=401, body=b"wrong key s3cret"))
    source = MemorySource(some_calls(1))
    with exporting(source, receiver):
        assert source.wait_empty()
    assert receiver.request_headers[0]["x-key"] == "s3cret"
    assert receiver.resources[0].attributes[0].value.string_value == "llm-proxy"
    assert "HTTP 401" in caplog.text
    assert "s3cret" not in caplog.text


def test_stop_sends_what_is_left_and_the_next_start_repeats_nothing(receiver: OtlpReceiver) -> None:
    source = MemorySource(some_calls(100))
    with exporting(source, receiver, limits=replace(QUICK, idle_s=5.0)) as exporter:
        assert source.wait_empty()
        source.calls.extend(plain_call(n) for n in range(100, 200))
        assert exporter.stop(2.0)
    assert set(receiver.spans) == ids(source.calls)
    with exporting(source, receiver):
        source.calls.append(plain_call(200))
        assert source.wait_empty()
    assert receiver.duplicates == 0


@pytest.mark.parametrize("state", ["hanging", "down", "busy"])
def test_stop_is_quick_whatever_the_backend_does(state: str, receiver: OtlpReceiver) -> None:
    source = MemorySource(some_calls(10))
    if state == "hanging":
        receiver.script(*[Answer(hang=True)] * 10)
    elif state == "busy":
        receiver.script(*[Answer(status=503, headers={"retry-after": "100"})] * 10)
    else:
        receiver.stop()
    metrics = Metrics()
    exporter = OutboxExporter(
        source,
        HttpTransport(receiver.endpoint, {}),
        SpanSettings(),
        metrics,
        clock=time.time,
        random=lambda: 0.5,
        limits=QUICK,
    )
    exporter.start()
    if state == "down":
        assert wait_for(lambda: "ConnectionRefused" in metrics.render().decode())
    else:
        assert receiver.wait_until(lambda: len(receiver.requests) >= 1)
    assert exporter.stop(0.2)
    assert source.cursor == 0
    assert exporter.stop(0.2), "stopping twice changes nothing"


def test_the_exporter_needs_neither_the_sdk_nor_grpc() -> None:
    code = """
import sys
import llm_proxy.telemetry.outbox, llm_proxy.telemetry.transport
heavy = {"grpc", "opentelemetry.sdk", "requests", "opentelemetry.exporter"} & set(sys.modules)
sys.exit(", ".join(heavy) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def wait_for(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + 10
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()
