"""What Anthropic's replies mean: fixture → folded reply, streamed in any chunking and whole."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from anthropic import Anthropic
from anthropic.types import ToolUseBlock

from llm_proxy.chat.events import (
    ANTHROPIC_FORMAT,
    Ended,
    Failed,
    Finished,
    Frame,
    ReasoningKind,
    ServerTool,
    Usage,
)
from llm_proxy.chat.reply import Assembly, ChoiceReply, ReasoningPart, Reply, ServerToolUse, ToolCall
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES
from llm_proxy.wire.sse import SseReader

FIXTURES = Path(__file__).parent / "anthropic_messages"
SIGNATURE = "EqQBCkYIBxgCIkAxZ0h0b2tlbi9zaWduYXR1cmU+PT0yRUdYc2pFa1hWUEtDc0ZJEgx5Zm5jUzZVdWRhTE8aDHFZb2s3/w=="
REDACTED = (
    "EmwKAhgBEgy3va3pzix/LafPsn4aDFIT2Xlxh0L5L8rLVyIwxtE3rAFBa8cr3qpPkNRj2YfWXGmKDxH4mPnZ5sQ7vB9URj2pLmN3kF8/"
    "dW5hR7xJ0aP1oLs9yTcMnKVf2wRpEGjH9XZBt4UvDcPrQ"
)
SONNET = "claude-sonnet-4-5-20250929"
OPUS = "claude-opus-4-6"


def call(index: int, id_: str, name: str, arguments: str) -> ToolCall:
    return ToolCall(choice=0, index=index, id=id_, name=name, arguments=arguments)


def thought(text: str, kind: ReasoningKind = ReasoningKind.RAW, signature: str = "") -> ReasoningPart:
    return ReasoningPart(kind=kind, text=text, signature=signature, format=ANTHROPIC_FORMAT)


def reply(id_: str, model: str, usage: Usage, **choice: object) -> Reply:
    (made,) = (ChoiceReply(index=0, **choice),)  # pyright: ignore[reportArgumentType]
    return Reply(id=id_, model=model, usage=usage, choices=(made,), complete=True)


BOTH = {
    "text": reply(
        "msg_01XFDUDYJgAACzvnptvVoYEL",
        SONNET,
        Usage(input=25, output=15),
        text="Hello, Zürich!",
        finish="stop",
    ),
    "redacted": reply(
        "msg_01RedactQ",
        SONNET,
        Usage(input=30, output=60, reasoning=51),
        text="Done.",
        reasoning=(thought(REDACTED, ReasoningKind.REDACTED), thought("", signature=SIGNATURE)),
        finish="stop",
    ),
    "web_search": reply(
        "msg_01SearchW",
        SONNET,
        Usage(input=10682, output=510),
        text="I'll search. Born in 1916.",
        server_tools=(
            ServerToolUse(index=1, name="web_search", id="srvtoolu_014hJH82Qum7Td6UV8gDXThB"),
            ServerToolUse(index=2, name="web_search_tool_result", id="srvtoolu_014hJH82Qum7Td6UV8gDXThB"),
        ),
        finish="stop",
    ),
    "stop_sequence": reply(
        "msg_01Seq", SONNET, Usage(input=20, output=5), text="1, 2", finish="stop_sequence"
    ),
    "pause_turn": reply(
        "msg_01Pause",
        SONNET,
        Usage(input=1057, output=70, cached=7),
        server_tools=(
            ServerToolUse(index=1, name="example__echo", id="mcptoolu_01"),
            ServerToolUse(index=2, name="mcp_tool_result", id="mcptoolu_01"),
        ),
        finish="pause",
    ),
}


def thinking(arguments: str) -> Reply:
    return reply(
        "msg_01ThinkB7q",
        OPUS,
        Usage(input=2560, output=89, cached=2048, cache_write=100, reasoning=40),
        text="Let me check.",
        reasoning=(thought("The user wants the weather.", signature=SIGNATURE),),
        calls=(call(2, "toolu_01T1x1fJ34qAmk2tNTrN7Up6", "get_weather", arguments),),
        finish="tool_call",
    )


def parallel(city: str, target: str) -> Reply:
    return reply(
        "msg_01ParallelK",
        SONNET,
        Usage(input=377, output=133),
        text="Checking both.",
        calls=(
            call(1, "toolu_01A", "get_weather", city),
            call(2, "toolu_01B", "get_time", "{}"),
            call(3, "toolu_01C", "browser.left_click", target),
        ),
        finish="tool_call",
    )


STREAMED = {
    **BOTH,
    "thinking": thinking('{"city": "Zürich"}'),
    "parallel": parallel('{"city": "SF"}', '{"target": {"type": "ref", "ref": "e12"}}'),
    "refusal": reply(
        "msg_01Refuse",
        OPUS,
        Usage(input=40, output=4),
        text="I'd",
        refusal="This request was declined.",
        finish="refusal",
    ),
    "max_tokens": reply(
        "msg_01Max",
        SONNET,
        Usage(input=20, output=16),
        calls=(call(0, "toolu_01Cut", "write", '{"path": "/tmp/a", "te'),),
        finish="length",
    ),
}
WHOLE = {
    **BOTH,
    "thinking": thinking('{"city":"Zürich"}'),
    "parallel": parallel('{"city":"SF"}', '{"target":{"type":"ref","ref":"e12"}}'),
    "refusal": reply(
        "msg_01Refuse", OPUS, Usage(input=40), refusal="This request was declined.", finish="refusal"
    ),
    "max_tokens": reply("msg_01Max", SONNET, Usage(input=20, output=16), text="Once upon", finish="length"),
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
    read = ANTHROPIC_MESSAGES.frame_reader()
    return [read(frame) for frame in frames + reader.close()]


def client(content: bytes, kind: str) -> Anthropic:
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": kind}, content=content)
    )
    return Anthropic(
        api_key="k",
        base_url="http://127.0.0.1",
        max_retries=0,
        http_client=httpx2.Client(transport=transport),
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_means_what_anthropic_meant(name: str, size: int, end: str) -> None:
    stream = (FIXTURES / f"{name}.sse").read_bytes().replace(b"\n", end.encode())
    frames = read_stream(stream, size)
    assert b"".join(frame.raw for frame in frames) == stream
    assert fold(frames) == STREAMED[name]
    assert frames[-1].events == (Ended(),)


@pytest.mark.parametrize("name", WHOLE)
def test_a_body_means_what_anthropic_meant(name: str) -> None:
    body = (FIXTURES / f"{name}.json").read_bytes()
    frame = ANTHROPIC_MESSAGES.read_body(body)
    assert frame.raw is body
    assert fold([frame]) == WHOLE[name]
    assert frame.events[-1] == Ended()


@pytest.mark.parametrize("name", STREAMED)
def test_the_official_sdk_finds_the_same_calls(name: str) -> None:
    sdk = client((FIXTURES / f"{name}.sse").read_bytes(), "text/event-stream")
    with sdk.messages.stream(model="m", max_tokens=9, messages=[]) as stream:
        message = stream.get_final_message()
    expected = STREAMED[name]
    (choice,) = expected.choices
    found = [block for block in message.content if isinstance(block, ToolUseBlock)]
    assert [block.id for block in found] == [call.id for call in choice.calls]
    for block, call_ in zip(found, choice.calls, strict=True):
        if choice.finish == "tool_call":
            assert block.input == json.loads(call_.arguments)
    assert "".join(block.text for block in message.content if block.type == "text") == choice.text


def test_an_error_in_the_stream_is_a_failure_and_no_finish() -> None:
    frames = read_stream((FIXTURES / "overloaded.sse").read_bytes(), 50)
    assert frames[-1].events == (Failed("Overloaded", "overloaded_error"),)
    assert not fold(frames).complete
    frame = ANTHROPIC_MESSAGES.read_body((FIXTURES / "overloaded.json").read_bytes())
    assert frame.events == (Failed("Overloaded", "overloaded_error"),)


def test_what_the_api_adds_to_an_ending_is_its_detail() -> None:
    def endings(name: str) -> list[Finished]:
        frames = read_stream((FIXTURES / f"{name}.sse").read_bytes(), 99)
        return [event for frame in frames for event in frame.events if isinstance(event, Finished)]

    assert endings("stop_sequence") == [Finished(0, "stop_sequence", "3")]
    assert endings("refusal") == [Finished(0, "refusal", "bio")]
    assert endings("text") == [Finished(0, "stop")]


def test_a_provider_tools_result_is_kept_whole() -> None:
    stream = (FIXTURES / "web_search.sse").read_bytes()
    used = [e for f in read_stream(stream, 99) for e in f.events if isinstance(e, ServerTool)]
    assert [event.raw == b"" for event in used] == [True, False]
    assert used[1].raw in stream
    body = (FIXTURES / "web_search.json").read_bytes()
    whole = [e for e in ANTHROPIC_MESSAGES.read_body(body).events if isinstance(e, ServerTool)]
    assert [json.loads(event.raw)["type"] for event in whole] == ["server_tool_use", "web_search_tool_result"]
    assert all(event.raw in body for event in whole)


def test_a_ping_and_a_comment_may_pass_what_waits() -> None:
    frames = read_stream(b': hi\n\nevent: ping\ndata: {"type": "ping"}\n\n', 99)
    assert [frame.inert for frame in frames] == [True, True]
    assert not any(frame.inert for frame in read_stream((FIXTURES / "redacted.sse").read_bytes(), 99))


def test_every_fixture_is_tested() -> None:
    names = {path.name for path in FIXTURES.iterdir() if path.suffix in (".sse", ".json")}
    tested = {f"{name}.sse" for name in STREAMED} | {f"{name}.json" for name in WHOLE}
    assert names == tested | {"overloaded.sse", "overloaded.json"}
