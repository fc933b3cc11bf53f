"""What servers' legacy completions mean: fixture → folded reply, streamed in any chunking and whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from openai.types import Completion

from llm_proxy.chat.events import Ended, Failed, Frame, Usage, UsageSeen
from llm_proxy.chat.reply import Assembly, ChoiceReply, Reply
from llm_proxy.wire.openai_completions import OPENAI_COMPLETIONS
from llm_proxy.wire.sse import SseReader

FIXTURES = Path(__file__).parent / "openai_completions"
INSTRUCT = "gpt-3.5-turbo-instruct:20230824-v2"
QWEN = "Qwen/Qwen3-32B"


def said(index: int, text: str, finish: str) -> ChoiceReply:
    return ChoiceReply(index=index, text=text, finish=finish)


def reply(id_: str, model: str, usage: Usage, *choices: ChoiceReply) -> Reply:
    return Reply(id=id_, model=model, usage=usage, choices=choices, complete=True)


STREAMED = {
    "openai": reply(
        "cmpl-7iA7iJjj8V2zOkCGvWF2hAkDWBQZe",
        INSTRUCT,
        Usage(input=10, output=6),
        said(0, "This is", "stop"),
        said(1, "Zürich.", "length"),
    ),
    "vllm": reply("cmpl-5c9f2d3e", QWEN, Usage(input=9, output=4), said(0, " is 4.", "stop")),
    "openrouter": reply(
        "gen-1762000000-Cmp", "meta-llama/llama-3.1-70b", Usage(input=4, output=2), said(0, "Go", "stop")
    ),
}

WHOLE = {
    "openai": reply(
        "cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7",
        INSTRUCT,
        Usage(input=5, output=7),
        said(0, "\n\nThis is indeed a test", "length"),
        said(1, ' Zürich "tool_calls": [{', "stop"),
    ),
    "vllm": reply(
        "cmpl-5c9f2d3e7a8b4c1d", QWEN, Usage(input=9, output=4, cached=8), said(0, " is 4.", "stop")
    ),
}


def fold(frames: list[Frame]) -> Reply:
    assembly = Assembly()
    for frame in frames:
        for event in frame.events:
            assembly.add(event)
    assert assembly.unreadable == ""
    return assembly.reply()


def read_stream(name: str, size: int) -> tuple[bytes, list[Frame]]:
    stream = (FIXTURES / f"{name}.sse").read_bytes()
    reader = SseReader()
    frames = [f for at in range(0, len(stream), size) for f in reader.feed(stream[at : at + size])]
    return stream, [OPENAI_COMPLETIONS.read_frame(frame) for frame in frames + reader.close()]


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_means_what_its_server_meant(name: str, size: int) -> None:
    stream, frames = read_stream(name, size)
    assert b"".join(frame.raw for frame in frames) == stream
    assert fold(frames) == STREAMED[name]
    assert frames[-1].events == (Ended(),)


@pytest.mark.parametrize("name", WHOLE)
def test_a_body_means_what_its_server_meant(name: str) -> None:
    body = (FIXTURES / f"{name}.json").read_bytes()
    frame = OPENAI_COMPLETIONS.read_body(body)
    assert frame.raw is body
    assert fold([frame]) == WHOLE[name]


@pytest.mark.parametrize("name", WHOLE)
def test_the_vendor_reads_the_same(name: str) -> None:
    read = Completion.model_validate_json((FIXTURES / f"{name}.json").read_bytes())
    assert [(c.index, c.text, c.finish_reason) for c in read.choices] == [
        (c.index, c.text, c.finish) for c in WHOLE[name].choices
    ]


def test_only_a_chunk_without_choices_is_usage_alone() -> None:
    seen = {
        name: [e.only for f in read_stream(name, 99)[1] for e in f.events if isinstance(e, UsageSeen)]
        for name in STREAMED
    }
    assert seen == {"openai": [True], "vllm": [False, False], "openrouter": [False]}


def test_an_error_in_the_stream_is_a_failure_and_no_finish() -> None:
    _, frames = read_stream("cut_by_error", 50)
    assert frames[1].events == (Failed("EngineCore died", "500"),)
    assert [choice.finish for choice in fold(frames).choices] == [""]


def test_every_fixture_is_tested() -> None:
    names = {path.name for path in FIXTURES.iterdir() if path.suffix in (".sse", ".json")}
    tested = {f"{name}.sse" for name in STREAMED} | {f"{name}.json" for name in WHOLE}
    assert names == tested | {"cut_by_error.sse"}
