"""The benchmark measures what it says: right replies are counted, wrong ones are errors, figures add up."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.figures import LoadResult, Sample, percentile, summarise
from bench.http1 import ReplyReader, Request, ServerConnection
from bench.load import Load, run_load
from bench.machine import commit
from bench.mock import DELTAS, PLAIN_EVENTS, TOOL_EVENTS, MockConnection, Stats
from bench.results import Cell, Startup, verdicts
from bench.run import full_cells, quick_cells
from bench.sink import SpanCounter
from bench.tally import Tally, Timing, problem_of
from bench.usage import Memory, memory, tree
from bench.workload import CALLS_PER_RUN, Conversation, MessageSource, Prompt, Reply, Workload
from llm_proxy.cli.check import examine
from llm_proxy.policy.cases import run_cases

SMALL = Workload(2, Reply.WHOLE, Prompt.SMALL)


@asynccontextmanager
async def serving(connection: Callable[[], asyncio.Protocol]) -> AsyncGenerator[int]:
    """A server on a free port; yields the port."""
    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def mock_connections(stats: Stats) -> Callable[[], asyncio.Protocol]:
    ids = itertools.count(1)
    return lambda: MockConnection(stats, ids)


class Fixed(ServerConnection):
    """Answers everything with the same bytes, then hangs up if told to."""

    def __init__(self, answer: bytes, *, hang_up: bool) -> None:
        super().__init__()
        self._answer = answer
        self._hang_up = hang_up

    def answer(self, request: Request) -> None:
        self.transport.write(self._answer)
        if self._hang_up:
            self.transport.close()


async def load_of_fixed(answer: bytes, reply: Reply, *, hang_up: bool = False) -> LoadResult:
    async with serving(lambda: Fixed(answer, hang_up=hang_up)) as port:
        return await run_load(Load(port=port, workload=Workload(1, reply, Prompt.SMALL), count=3))


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


@pytest.mark.parametrize("reply", list(Reply))
@pytest.mark.parametrize("prompt", list(Prompt))
async def test_every_request_of_a_load_is_served_and_counted(reply: Reply, prompt: Prompt) -> None:
    stats = Stats()
    async with serving(mock_connections(stats)) as port:
        result = await run_load(Load(port=port, workload=Workload(3, reply, prompt), count=25))
    assert (result.requests, result.answered, result.errors, result.problems) == (25, 25, 0, ())
    assert stats.whole + stats.streamed == 25
    assert stats.streamed == (0 if reply is Reply.WHOLE else 25)
    assert result.request_bytes * 25 == pytest.approx(stats.request_bytes)
    assert result.requests_per_s == pytest.approx(25 / result.seconds)
    assert 0 < result.ttfb_p50_ms <= result.p50_ms <= result.p90_ms <= result.p99_ms
    expected = {Reply.WHOLE: 0, Reply.STREAM: PLAIN_EVENTS, Reply.TOOLS: TOOL_EVENTS}[reply]
    assert result.events_per_s == pytest.approx(expected * 25 / result.seconds)


async def test_a_timed_load_counts_only_its_window() -> None:
    stats = Stats()
    async with serving(mock_connections(stats)) as port:
        result = await run_load(Load(port=port, workload=SMALL, warmup_s=0.05, seconds=0.1))
    assert result.seconds == pytest.approx(0.1)
    assert 0 < result.requests < result.answered == stats.whole
    assert result.errors == 0


async def test_a_status_other_than_200_is_an_error() -> None:
    answer = b'HTTP/1.1 429 Too Many Requests\r\nContent-Length: 19\r\n\r\n{"error":"limited"}'
    result = await load_of_fixed(answer, Reply.WHOLE)
    assert (result.requests, result.errors) == (0, 1)
    assert result.problems == ('status 429: {"error":"limited"}',)


async def test_a_stream_cut_with_its_connection_is_an_error() -> None:
    result = await load_of_fixed(chunked(b"data: {}\n\n", end=b""), Reply.STREAM, hang_up=True)
    assert result.problems == ("the server closed the connection, mid-reply",)


async def test_a_stream_that_ends_without_done_is_an_error() -> None:
    result = await load_of_fixed(chunked(*[b"data: {}\n\n"] * PLAIN_EVENTS), Reply.STREAM)
    assert result.errors == 1
    assert "did not end in [DONE]" in result.problems[0]


async def test_a_stream_that_lacks_an_event_is_an_error() -> None:
    frames = [b"data: {}\n\n"] * (PLAIN_EVENTS - 2)
    result = await load_of_fixed(chunked(*frames, b"data: [DONE]\n\n"), Reply.STREAM)
    assert result.problems == (f"the stream had {PLAIN_EVENTS - 1} events, {PLAIN_EVENTS} were expected",)


async def test_what_is_not_http_is_an_error() -> None:
    result = await load_of_fixed(b"hello\r\n\r\n", Reply.WHOLE)
    assert result.errors == 1
    assert "malformed reply" in result.problems[0]


async def test_a_refused_connection_is_an_error_for_each_connection() -> None:
    async with serving(mock_connections(Stats())) as port:
        pass
    result = await run_load(Load(port=port, workload=SMALL, count=5))
    assert (result.requests, result.errors) == (0, 2)
    assert msgspec.json.decode(msgspec.json.encode(result), type=LoadResult) == result
    assert f"cannot connect to port {port}" in result.problems[0]


async def mock_reply(body: Mapping[str, object]) -> bytes:
    async with serving(mock_connections(Stats())) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        payload = json.dumps(body).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(payload)
        writer.write(head + payload)
        reply = ReplyReader()
        while not reply.feed(await reader.read(65536)):
            pass
        writer.close()
        await writer.wait_closed()
        return reply.body


async def test_the_mock_streams_deltas_finish_usage_and_done() -> None:
    asked = {"model": "mock-1", "stream": True, "stream_options": {"include_usage": True}, "messages": []}
    frames = (await mock_reply(asked)).decode().removesuffix("\n\n").split("\n\n")
    assert frames[-1] == "data: [DONE]"
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert sum("content" in delta for delta in deltas) == DELTAS
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == chunks[-1]["usage"]["prompt_tokens"] + DELTAS


async def test_the_mock_streams_a_tool_call_whose_arguments_are_json() -> None:
    frames = (await mock_reply({"model": "mock-tools", "stream": True})).decode().split("\n\n")
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]
    calls = [call for c in chunks for call in c["choices"][0]["delta"].get("tool_calls", [])]
    arguments = json.loads("".join(call["function"]["arguments"] for call in calls))
    assert arguments == {"query": "late parcel case 0000000000000001", "limit": 5}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_the_mock_answers_whole_with_usage_of_this_prompt() -> None:
    body = {"model": "mock-1", "messages": [{"role": "user", "content": "x" * 400}]}
    reply = json.loads(await mock_reply(body))
    tokens = len(json.dumps(body)) // 4
    assert reply["usage"] == {
        "prompt_tokens": tokens,
        "completion_tokens": DELTAS,
        "total_tokens": tokens + DELTAS,
    }
    assert reply["choices"][0]["message"]["content"].startswith("[0000000000000001] ")


@given(cuts=st.lists(st.integers(1, 40), max_size=30))
def test_a_chunked_reply_reads_alike_however_it_is_split(cuts: list[int]) -> None:
    wire = chunked(b"data: a0\r\n\r\n", b"x" * 40, b"data: [DONE]\n\n")
    reply, at, whole = ReplyReader(), 0, False
    for cut in [*cuts, len(wire)]:
        assert not whole or at >= len(wire)
        if at < len(wire):
            whole = reply.feed(wire[at : at + cut])
        at += cut
    assert whole
    assert reply.body == b"data: a0\r\n\r\n" + b"x" * 40 + b"data: [DONE]\n\n"


def test_a_reply_without_length_ends_with_its_connection() -> None:
    reply = ReplyReader()
    assert not reply.feed(b"HTTP/1.1 200 OK\r\n\r\nab")
    assert reply.ends_with_connection
    assert reply.body == b"ab"


def test_problem_of_names_what_is_wrong() -> None:
    reply = ReplyReader()
    assert reply.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    assert problem_of(reply, 0) == "no completion: {}"


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 100))
def test_a_percentile_is_the_least_value_with_that_share_at_or_below(
    values: list[float], percent: float
) -> None:
    ordered = sorted(values)
    found = percentile(ordered, percent)
    assert sum(v <= found for v in ordered) / len(ordered) >= percent / 100 - 1e-12
    assert sum(v < found for v in ordered) / len(ordered) < percent / 100


def test_percentiles_by_nearest_rank() -> None:
    hundred = [float(n) for n in range(1, 101)]
    assert [percentile(hundred, p) for p in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert percentile([3.0], 1) == 3.0
    assert percentile([], 50) == 0.0
    with pytest.raises(ValueError, match="not 0"):
        percentile(hundred, 0)


def test_a_tally_leaves_out_what_ended_outside_its_window() -> None:
    tally = Tally(opened=10.0)
    tally.close(12.0)
    for ended in (9.9, 10.5, 11.0, 12.1):
        tally.right(Timing(sent=ended - 0.1, first=ended - 0.05, ended=ended), events=52, request_bytes=1000)
    tally.wrong("status 500")
    result = tally.result(cpu_s=0.004)
    assert (result.requests, result.answered, result.errors) == (2, 4, 1)
    assert (result.requests_per_s, result.events_per_s) == (1.0, 52.0)
    assert result.p50_ms == pytest.approx(100)
    assert result.ttfb_p50_ms == pytest.approx(50)
    assert result.load_cpu_us == pytest.approx(1000)


def sample(rate: float, p50_ms: float) -> Sample:
    load = LoadResult(
        seconds=1.0,
        requests=1,
        answered=1,
        errors=0,
        problems=(),
        requests_per_s=rate,
        events_per_s=0.0,
        p50_ms=p50_ms,
        p90_ms=p50_ms,
        p99_ms=p50_ms,
        ttfb_p50_ms=p50_ms,
        ttfb_p99_ms=p50_ms,
        request_bytes=1000.0,
        load_cpu_us=10.0,
    )
    return Sample(load=load, cpu_us=100.0, drain_s=0.0)


def cell(workload: Workload, bare: list[Sample], proxy: list[Sample]) -> Cell:
    return Cell(
        workload=workload,
        bare=summarise(bare),
        proxy=summarise(proxy),
        bare_rounds=tuple(bare),
        proxy_rounds=tuple(proxy),
    )


def test_a_cell_compares_medians_over_rounds() -> None:
    bare = [sample(1000, 1.0), sample(4000, 9.0), sample(1200, 2.0)]
    proxy = [sample(300, 4.0), sample(360, 5.5), sample(10, 90.0)]
    found = cell(Workload(1, Reply.WHOLE, Prompt.SMALL), bare, proxy)
    assert found.ratio == pytest.approx(0.25)
    assert found.added_p50_ms == pytest.approx(3.5)


def test_verdicts_judge_the_targets_and_nothing_else() -> None:
    from_bench = [
        cell(Workload(32, Reply.WHOLE, Prompt.SMALL), [sample(1000, 1.0)], [sample(300, 9.0)]),
        cell(Workload(32, Reply.STREAM, Prompt.SMALL), [sample(1000, 1.0)], [sample(299, 9.0)]),
        cell(Workload(32, Reply.WHOLE, Prompt.HISTORY), [sample(1000, 1.0)], [sample(10, 9.0)]),
        cell(Workload(1, Reply.WHOLE, Prompt.SMALL), [sample(1000, 1.0)], [sample(10, 4.0)]),
        cell(Workload(1, Reply.WHOLE, Prompt.UNIQUE), [sample(1000, 1.0)], [sample(10, 40.0)]),
    ]
    startup = Startup(
        ready_s=(1.0, 3.1),
        before_first_call=Memory(rss_mb=149.0, pss_mb=140.0, processes=1),
        after_first_call=Memory(rss_mb=240.0, pss_mb=230.0, processes=1),
        after_calls=Memory(rss_mb=250.0, pss_mb=230.0, processes=1),
        calls=20_000,
    )
    found = verdicts(tuple(from_bench), startup, {})
    assert [(v.figure, v.met) for v in found] == [
        ("30.0%", True),
        ("29.9%", False),
        ("3.00 ms", True),
        ("3.10 s", False),
        ("149 MB", True),
        ("240 MB", False),
    ]
    assert verdicts((), None, {}) == []


@pytest.mark.parametrize("prompt", list(Prompt))
def test_no_two_bodies_of_a_conversation_are_alike(prompt: Prompt) -> None:
    source = MessageSource(seed=3)
    lanes = [Conversation(Workload(2, Reply.TOOLS, prompt), source, 3, lane) for lane in range(2)]
    sent = [conversation.next() for _ in range(2 * CALLS_PER_RUN) for conversation in lanes]
    bodies = [body for _, body in sent]
    assert len(set(bodies)) == len(bodies)
    sizes = [len(body) for body in bodies]
    least, most = (900, 1400) if prompt is Prompt.SMALL else (80_000, 121_000)
    assert least < min(sizes) <= max(sizes) < most


def test_a_run_resends_its_history_with_one_new_message() -> None:
    conversation = Conversation(Workload(1, Reply.WHOLE, Prompt.HISTORY), MessageSource(1), 1, 0)
    calls = [conversation.next() for _ in range(CALLS_PER_RUN + 1)]
    runs = [run for run, _ in calls]
    messages = [json.loads(body)["messages"] for _, body in calls]
    assert len(set(runs[:CALLS_PER_RUN])) == 1
    assert runs[CALLS_PER_RUN] != runs[0]
    for earlier, later in itertools.pairwise(messages[:CALLS_PER_RUN]):
        assert later[:-1] == earlier
    assert messages[CALLS_PER_RUN][1] != messages[0][1]


def test_both_plans_hold_what_the_targets_need() -> None:
    needed = {Workload(32, Reply.WHOLE, Prompt.SMALL), Workload(1, Reply.WHOLE, Prompt.SMALL)}
    assert needed <= set(quick_cells()) <= set(full_cells())
    assert len(set(full_cells())) == len(full_cells())


def span_batch(*span_ids: bytes) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for span_id in span_ids:
        scope.spans.add(span_id=span_id, name="chat mock-1")
    return request.SerializeToString()


def test_the_sink_counts_spans_and_repeats_packed_or_not() -> None:
    counter = SpanCounter()
    counter.add(span_batch(b"aaaaaaaa", b"bbbbbbbb"))
    assert counter.count().spans == 2
    counter.add(gzip.compress(span_batch(b"bbbbbbbb", b"cccccccc")))
    count = counter.count()
    assert (count.batches, count.spans, count.duplicates) == (2, 4, 1)


def test_memory_and_tree_of_this_process() -> None:
    assert os.getpid() in tree(os.getpid())
    used = memory(os.getpid())
    assert 0 < used.pss_mb <= used.rss_mb
    assert used.processes >= 1


def test_the_commit_is_read_from_a_ref_a_packed_ref_or_the_head(tmp_path: Path) -> None:
    assert commit(tmp_path) == ""
    (tmp_path / "HEAD").write_text("0123abcd\n")
    assert commit(tmp_path) == "0123abcd"
    (tmp_path / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / "packed-refs").write_text("# pack-refs\naaaa refs/heads/mainly\nbbbb refs/heads/main\n")
    assert commit(tmp_path) == "bbbb"
    (tmp_path / "refs" / "heads").mkdir(parents=True)
    (tmp_path / "refs" / "heads" / "main").write_text("cccc\n")
    assert commit(tmp_path) == "cccc"


def test_the_benchmark_config_is_valid_and_its_policy_does_what_it_says() -> None:
    report = examine(Path(__file__).parents[2] / "bench" / "proxy.yaml", {})
    assert report.errors == ()
    assert report.policy is not None
    assert len(report.policy.file.rules) == 20
    cases = run_cases(report.policy)
    assert cases.passed, (cases.never_hit, [result for result in cases.results if not result.passed])
