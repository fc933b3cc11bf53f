"""What real servers' replies mean: fixture → folded reply, streamed in any chunking and whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_proxy.chat.events import Ended, Failed, Frame, ReasoningKind, Usage, UsageSeen
from llm_proxy.chat.reply import Assembly, ChoiceReply, ReasoningPart, Reply, ToolCall
from llm_proxy.chat.thinking import ThinkTags
from llm_proxy.wire.openai_chat.reply import read_body, read_frame
from llm_proxy.wire.sse import SseReader

FIXTURES = Path(__file__).parent / "openai_chat"


CLAUDE = "anthropic-claude-v1"
RESPONSES = "openai-responses-v1"


def call(index: int, id_: str, name: str, arguments: str, signature: str = "") -> ToolCall:
    return ToolCall(choice=0, index=index, id=id_, name=name, arguments=arguments, signature=signature)


def raw(text: str) -> ReasoningPart:
    return ReasoningPart(kind=ReasoningKind.RAW, text=text)


def claude(text: str, signature: str) -> ReasoningPart:
    return ReasoningPart(kind=ReasoningKind.RAW, text=text, signature=signature, format=CLAUDE)


def redacted(text: str) -> ReasoningPart:
    return ReasoningPart(kind=ReasoningKind.REDACTED, text=text, format=CLAUDE)


def reply(id_: str, model: str, usage: Usage | None, *choices: ChoiceReply) -> Reply:
    return Reply(id=id_, model=model, usage=usage, choices=choices, complete=True)


QWEN = "Qwen/Qwen3-32B"
SEARCH = call(0, "chatcmpl-tool-41c0", "search", '{"q": "sse"}')
DEEPSEEK = ChoiceReply(index=0, text="9.8 wins.", reasoning=(raw("9.8 is greater."),), finish="stop")
FLIGHT = ("function-call-111", "check_flight", '{"flight":"AA100"}')
TAXI = ("function-call-222", "book_taxi", '{"time":"10 AM"}')

STREAMED = {
    "openai": reply(
        "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "gpt-4o-2024-08-06",
        Usage(input=82, output=34),
        ChoiceReply(
            index=0,
            text="Checking both.",
            calls=(
                call(0, "call_62136354", "get_weather", '{"city":"Zürich"}'),
                call(1, "call_62136355", "get_time", '{"tz":"CET"}'),
            ),
            finish="tool_call",
        ),
    ),
    "deepseek": reply(
        "930c60df-bf64-41c9-a88e-3ec75f81e00e",
        "deepseek-reasoner",
        Usage(input=17, output=55, cached=8, reasoning=41),
        DEEPSEEK,
    ),
    "vllm": reply(
        "chatcmpl-5c9f2d3e7a8b4c1d",
        QWEN,
        Usage(input=203, output=48),
        ChoiceReply(
            index=0,
            text="One moment.",
            reasoning=(raw("Look it up."),),
            calls=(SEARCH,),
            finish="tool_call",
        ),
    ),
    "openrouter": reply(
        "gen-1762000000-Kx2",
        "anthropic/claude-sonnet-4.5",
        Usage(input=300, output=60, cached=250, cache_write=20, reasoning=22),
        ChoiceReply(
            index=0,
            text="Reading.",
            reasoning=(claude("Need the file.", "EqoBCkgIARABGAIi"), redacted("Emwrq2==")),
            calls=(call(0, "toolu_01", "read_file", '{"path": "a.txt"}'),),
            finish="tool_call",
        ),
    ),
    "mistral": reply(
        "b7b7b3f1c2d14a6c",
        "magistral-medium-2509",
        Usage(input=90, output=60),
        ChoiceReply(
            index=0,
            text="It is four.",
            reasoning=(raw("Two plus two."),),
            calls=(call(0, "gSIMJiOkT", "store", '{"n": 4}'), call(1, "hTJNKjPlU", "notify", "{}")),
            finish="tool_call",
        ),
    ),
    "xai": reply(
        "6ae2a4c1-0d1f-4b57-a9d5-2f1f7c3b9a10",
        "grok-4-0709",
        Usage(input=32, output=103, cached=6, reasoning=94),
        ChoiceReply(
            index=0,
            text="Yes.",
            reasoning=(
                raw("Check it."),
                ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="oR0aBcD=", format="xai-chat-v1"),
            ),
            finish="stop",
        ),
    ),
    "litellm": reply(
        "chatcmpl-2b6d",
        "claude-sonnet-4-5",
        Usage(input=40, output=30, reasoning=12),
        ChoiceReply(
            index=0,
            text="Four.",
            reasoning=(claude("Two and two.", "EqoBCkgI"),),
            finish="stop",
        ),
    ),
    "groq": reply(
        "chatcmpl-f51b2cd2",
        "qwen/qwen3-32b",
        Usage(input=20, output=15),
        ChoiceReply(index=0, text="<think>\nSum.\n</think>\n\nFour.", finish="stop"),
    ),
    "legacy": reply(
        "chatcmpl-7legacy",
        "gpt-3.5-turbo-0613",
        None,
        ChoiceReply(index=0, calls=(call(-1, "", "lookup", '{"id": 7}'),), finish="tool_call"),
    ),
}

WHOLE = {
    "openai": reply(
        "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "gpt-4.1-2025-04-14",
        Usage(input=1024, output=90, cached=896, reasoning=64),
        ChoiceReply(index=0, text="Hello! How can I assist you today?", finish="stop"),
        ChoiceReply(index=1, refusal="I can't help with that.", finish="stop"),
    ),
    "deepseek": STREAMED["deepseek"],
    "vllm": reply(
        "chatcmpl-5c9f2d3e7a8b4c1d",
        QWEN,
        Usage(input=203, output=48),
        ChoiceReply(index=0, reasoning=(raw("Look it up."),), calls=(SEARCH,), finish="tool_call"),
    ),
    "openrouter": reply(
        "gen-1762000000-Kx2",
        "anthropic/claude-sonnet-4.5",
        Usage(input=11, output=70, reasoning=64),
        ChoiceReply(
            index=0,
            text="Done.",
            reasoning=(
                ReasoningPart(kind=ReasoningKind.SUMMARY, text="**Plan**", format=RESPONSES),
                ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="gAAAAABo", id="rs_0a", format=RESPONSES),
            ),
            finish="stop",
        ),
    ),
    "mistral": reply(
        "b7b7b3f1c2d14a6c",
        "magistral-medium-2509",
        Usage(input=90, output=60),
        ChoiceReply(index=0, text="It is four.", reasoning=(raw("Two plus two."),), finish="length"),
    ),
    "gemini": reply(
        "k9kZaZ2VJ4y",
        "gemini-3-pro-preview",
        Usage(input=105, output=115, reasoning=84),
        ChoiceReply(index=0, calls=(call(0, *FLIGHT, "CvcBAVSoXO"), call(1, *TAXI)), finish="tool_call"),
    ),
    "xai": STREAMED["xai"],
    "litellm": STREAMED["litellm"],
    "legacy": reply(
        "chatcmpl-7legacy",
        "gpt-3.5-turbo-0613",
        Usage(input=5, output=0),
        ChoiceReply(index=0, calls=(call(-1, "", "lookup", '{"id": 7}'),), finish="tool_call"),
    ),
}


def fold(frames: list[Frame]) -> Reply:
    assembly = Assembly()
    for frame in frames:
        for event in frame.events:
            assembly.add(event)
    assert assembly.unreadable == ""
    return assembly.reply()


def read_stream(stream: bytes, size: int) -> list[Frame]:
    reader = SseReader()
    frames = [f for at in range(0, len(stream), size) for f in reader.feed(stream[at : at + size])]
    return [read_frame(frame) for frame in frames + reader.close()]


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_means_what_its_server_meant(name: str, size: int) -> None:
    stream = (FIXTURES / f"{name}.sse").read_bytes()
    frames = read_stream(stream, size)
    assert b"".join(frame.raw for frame in frames) == stream
    assert fold(frames) == STREAMED[name]
    assert frames[-1].events == (Ended(),)


@pytest.mark.parametrize("name", WHOLE)
def test_a_body_means_what_its_server_meant(name: str) -> None:
    body = (FIXTURES / f"{name}.json").read_bytes()
    frame = read_body(body)
    assert frame.raw is body
    assert fold([frame]) == WHOLE[name]


def test_calls_that_a_stream_leaves_unnumbered_stay_apart() -> None:
    whole = fold(read_stream((FIXTURES / "gemini.sse").read_bytes(), 50))
    (choice,) = whole.choices
    assert {(c.id, c.name, c.arguments, c.signature) for c in choice.calls} == {
        (*FLIGHT, "CvcBAVSoXO"),
        (*TAXI, ""),
    }
    assert choice.text == "<thought>Ask twice</thought>On it."
    assert whole.usage == Usage(input=105, output=115, reasoning=84)


@pytest.mark.parametrize("size", [1, 50, 1 << 20])
@pytest.mark.parametrize(
    ("name", "thought", "text"), [("groq", "Sum.\n", "Four."), ("gemini", "Ask twice", "On it.")]
)
def test_tagged_reasoning_is_taken_out_of_the_text(name: str, thought: str, text: str, size: int) -> None:
    tags = ThinkTags()
    frames = read_stream((FIXTURES / f"{name}.sse").read_bytes(), size)
    split = [Frame(frame.raw, tuple(tags.split(frame.events))) for frame in frames]
    (choice,) = fold(split).choices
    assert choice.reasoning == (ReasoningPart(kind=ReasoningKind.INLINE_TAG, text=thought),)
    assert choice.text == text
    assert tags.close() == []


def test_an_error_in_the_stream_is_a_failure_and_no_finish() -> None:
    frames = read_stream((FIXTURES / "openrouter_error.sse").read_bytes(), 50)
    assert frames[-1].events[-1] == Failed("Provider disconnected", "502")
    assert not fold(frames).complete


def test_only_a_chunk_without_choices_is_usage_alone() -> None:
    seen = {
        name: [
            event.only
            for frame in read_stream((FIXTURES / f"{name}.sse").read_bytes(), 99)
            for event in frame.events
            if isinstance(event, UsageSeen)
        ]
        for name in STREAMED
    }
    assert seen == {
        "openai": [True],
        "deepseek": [False],
        "vllm": [True],
        "openrouter": [False],
        "mistral": [False],
        "xai": [True],
        "litellm": [False],
        "groq": [False],
        "legacy": [],
    }


def test_every_fixture_is_tested() -> None:
    names = {path.name for path in FIXTURES.iterdir() if path.suffix in (".sse", ".json")}
    tested = {f"{name}.sse" for name in STREAMED} | {f"{name}.json" for name in WHOLE}
    assert names == tested | {"gemini.sse", "openrouter_error.sse"}
