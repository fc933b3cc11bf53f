"""The benchmark's long streams: as many deltas as asked for, in each dialect, and what translation adds."""

from __future__ import annotations

import pytest

from bench.dialects import Dialect
from bench.figures import summarise
from bench.load import Load, run_load
from bench.mock import Stats
from bench.results import Cell, verdicts
from bench.translate import measure
from bench.workload import LONG, Prompt, Reply, Workload
from tests.unit.test_bench import Fixed, chunked, mock_connections, sample, serving


@pytest.mark.parametrize("deltas", LONG)
@pytest.mark.parametrize("upstream", [Dialect.CHAT, Dialect.MESSAGES])
async def test_a_long_stream_has_as_many_deltas_as_were_asked_for(deltas: int, upstream: Dialect) -> None:
    workload = Workload(2, Reply.STREAM, Prompt.SMALL, deltas, upstream, upstream)
    async with serving(mock_connections(Stats())) as port:
        result = await run_load(Load(port=port, workload=workload, count=4))
    assert (result.requests, result.problems) == (4, ())
    around = {Dialect.CHAT: 2, Dialect.MESSAGES: 5}[upstream]
    assert result.events_per_s == pytest.approx((deltas + around) * 4 / result.seconds)


async def test_a_messages_stream_that_lacks_its_end_is_an_error() -> None:
    workload = Workload(1, Reply.STREAM, Prompt.SMALL, 300, Dialect.MESSAGES, Dialect.MESSAGES)
    answer = chunked(*[b"event: content_block_delta\ndata: {}\n\n"] * 305)
    async with serving(lambda: Fixed(answer, hang_up=False)) as port:
        result = await run_load(Load(port=port, workload=workload, count=1))
    assert result.errors == 1
    assert "did not end in message_stop" in result.problems[0]


def test_the_ratio_of_a_long_stream_has_a_target_of_its_own() -> None:
    workload = Workload(32, Reply.STREAM, Prompt.SMALL, 300, Dialect.CHAT, Dialect.CHAT)
    bare, proxy = sample(200, 1.0), sample(100, 1.0)
    cell = Cell(
        workload=workload,
        bare=summarise([bare]),
        proxy=summarise([proxy]),
        bare_rounds=(bare,),
        proxy_rounds=(proxy,),
    )
    found = [
        (verdict.figure, verdict.met) for verdict in verdicts((cell,), None, {"a → b": 1.1, "b → a": 0.2})
    ]
    assert found == [("50.0%", True), ("1.10 ms", False), ("0.20 ms", True)]


def test_translation_is_measured_for_every_caller_and_upstream_that_the_mock_speaks() -> None:
    added = measure()
    assert set(added) == {
        "openai_responses → openai_chat",
        "anthropic_messages → openai_chat",
        "openai_chat → anthropic_messages",
        "openai_responses → anthropic_messages",
    }
