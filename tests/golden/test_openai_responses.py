"""What real servers' Responses mean: fixture → folded reply, streamed in any chunking and whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llm_proxy.chat.events import RESPONSES_FORMAT, Ended, Failed, Frame, ReasoningKind, ServerTool, Usage
from llm_proxy.chat.reply import Assembly, ChoiceReply, ReasoningPart, Reply, ServerToolUse, ToolCall
from llm_proxy.wire.openai_responses.reader import Reader
from llm_proxy.wire.openai_responses.reply import read_body, read_frame
from llm_proxy.wire.sse import SseFrame, SseReader

FIXTURES = Path(__file__).parent / "openai_responses"
GPT5 = "gpt-5.1-2025-11-13"
GPT4 = "gpt-4.1-2025-04-14"


def call(index: int, id_: str, name: str, arguments: str, *, custom: bool = False) -> ToolCall:
    return ToolCall(choice=0, index=index, id=id_, name=name, arguments=arguments, custom=custom)


def thought(kind: ReasoningKind, text: str, id_: str) -> ReasoningPart:
    return ReasoningPart(kind=kind, text=text, id=id_, format=RESPONSES_FORMAT)


def reply(
    id_: str,
    model: str,
    usage: Usage,
    text: str = "",
    *,
    finish: str = "stop",
    refusal: str = "",
    reasoning: tuple[ReasoningPart, ...] = (),
    calls: tuple[ToolCall, ...] = (),
    server_tools: tuple[ServerToolUse, ...] = (),
) -> Reply:
    choice = ChoiceReply(
        index=0,
        text=text,
        refusal=refusal,
        reasoning=reasoning,
        calls=calls,
        server_tools=server_tools,
        finish=finish,
    )
    return Reply(id=id_, model=model, usage=usage, choices=(choice,), complete=True)


MEANT = {
    "text": reply("resp_68a1", GPT5, Usage(input=19, output=9, cached=4), "Grüß dich, wie geht es?"),
    "calls": reply(
        "resp_68a2",
        GPT5,
        Usage(input=120, output=88, cached=64, reasoning=40),
        "Checking both.",
        finish="tool_call",
        reasoning=(
            thought(ReasoningKind.SUMMARY, "**Two cities**\n\nAsk for both.\n\n**Then answer**", "rs_68a2"),
            thought(ReasoningKind.ENCRYPTED, "gAAAAABpCiphertext==", "rs_68a2"),
        ),
        calls=(
            call(2, "call_9Zr", "get_weather", '{"city":"Zürich"}'),
            call(3, "call_8Qw", "crm__get_customer", '{"id":"c-17"}'),
        ),
    ),
    "vllm": reply(
        "resp_4c1f",
        "openai/gpt-oss-120b",
        Usage(input=150, output=42, reasoning=20),
        finish="tool_call",
        reasoning=(thought(ReasoningKind.RAW, "The user wants the time. Call the tool.", "rs_4c1f"),),
        calls=(call(1, "call_4c1f", "get_time", '{"tz": "CET"}'),),
    ),
    "custom": reply(
        "resp_68a4",
        "gpt-5.1-codex",
        Usage(input=300, output=50),
        finish="tool_call",
        calls=(
            call(
                0,
                "call_Ptch",
                "apply_patch",
                '*** Begin Patch\n*** Update File: a.py\n+"x"\n*** End Patch',
                custom=True,
            ),
        ),
    ),
    "web_search": reply(
        "resp_68a5",
        GPT4,
        Usage(input=328, output=30),
        "JSON is ([rfc-editor.org]) in RFC 8259.",
        server_tools=(ServerToolUse(index=0, name="web_search", id="ws_68a5"),),
    ),
    "refusal": reply("resp_68a6", GPT4, Usage(input=30, output=8), refusal="I can't help with that."),
    "incomplete": reply(
        "resp_68a7", GPT5, Usage(input=25, output=16, reasoning=12), "It is a long", finish="length"
    ),
    "code": reply(
        "resp_68a9",
        GPT4,
        Usage(input=90, output=20),
        "42.",
        server_tools=(ServerToolUse(index=0, name="code_interpreter", id="ci_68a9"),),
    ),
    "computer": reply(
        "resp_68b0",
        "computer-use-preview",
        Usage(input=700, output=40, reasoning=16),
        finish="tool_call",
        reasoning=(thought(ReasoningKind.SUMMARY, "Click it.", "rs_68b0"),),
        calls=(call(1, "call_Cu1", "computer", '{"type":"click","button":"left","x":135,"y":193}'),),
    ),
    "mcp": reply(
        "resp_68b1",
        GPT5,
        Usage(input=60, output=20),
        finish="tool_call",
        calls=(call(2, "mcpr_1", "github__delete_repo", '{"repo":"a/b"}'),),
        server_tools=(
            ServerToolUse(index=0, name="mcp_list_tools", id="mcpl_1"),
            ServerToolUse(index=1, name="github__whoami", id="mcp_1"),
        ),
    ),
}
LLAMA = reply(
    "resp_lc",
    "qwen3",
    Usage(input=10, output=20),
    "Looking.",
    finish="tool_call",
    calls=(call(1, "fc_Xk2", "ls", '{"path":"."}'), call(2, "fc_Ym3", "cat", '{"path":"a"}')),
)
STREAMED = {**MEANT, "llama_cpp": LLAMA}


def fold(frames: list[Frame]) -> Reply:
    assembly = Assembly()
    for frame in frames:
        for event in frame.events:
            assembly.add(event)
    assert assembly.unreadable == ""
    return assembly.reply()


def read_stream(stream: bytes, size: int, read: Callable[[SseFrame], Frame]) -> list[Frame]:
    reader = SseReader()
    frames = [f for at in range(0, len(stream), size) for f in reader.feed(stream[at : at + size])]
    return [read(frame) for frame in frames + reader.close()]


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_means_what_its_server_meant(name: str, size: int) -> None:
    stream = (FIXTURES / f"{name}.sse").read_bytes()
    frames = read_stream(stream, size, Reader().read)
    assert b"".join(frame.raw for frame in frames) == stream
    assert fold(frames) == STREAMED[name]
    assert frames[-1].events[-1] == Ended()


@pytest.mark.parametrize("name", MEANT)
def test_frames_read_one_by_one_mean_the_same(name: str) -> None:
    stream = (FIXTURES / f"{name}.sse").read_bytes()
    assert fold(read_stream(stream, 4096, read_frame)) == MEANT[name]


@pytest.mark.parametrize("ends", [b"\r\n", b"\r"])
@pytest.mark.parametrize("name", ["calls", "custom"])
def test_line_ends_and_comments_change_nothing(name: str, ends: bytes) -> None:
    stream = b"\xef\xbb\xbf: hi\n\n" + (FIXTURES / f"{name}.sse").read_bytes()
    frames = read_stream(stream.replace(b"\n", ends), 11, Reader().read)
    assert fold(frames) == MEANT[name]
    assert [frame.inert for frame in frames].count(True) == 1


@pytest.mark.parametrize("name", MEANT)
def test_a_body_means_what_its_server_meant(name: str) -> None:
    body = (FIXTURES / f"{name}.json").read_bytes()
    frame = read_body(body)
    assert frame.raw is body
    assert frame.events[-1] == Ended()
    assert fold([frame]) == MEANT[name]


def test_a_server_tool_keeps_its_item() -> None:
    tools = [
        event
        for frame in (read_body((FIXTURES / "code.json").read_bytes()),)
        for event in frame.events
        if isinstance(event, ServerTool)
    ]
    assert b'"logs": "42\\n"' in tools[0].raw


def test_a_failed_response_is_a_failure_and_no_finish() -> None:
    failed = Failed("Rate limit reached for gpt-5.1", "rate_limit_exceeded")
    assert read_body((FIXTURES / "failed.json").read_bytes()).events[-1] == failed
    frames = read_stream((FIXTURES / "failed.sse").read_bytes(), 50, Reader().read)
    assert frames[-1].events[-1] == failed
    assert not fold(frames).complete


def test_a_response_in_the_background_ends_unfinished() -> None:
    whole = fold([read_body((FIXTURES / "background.json").read_bytes())])
    assert (whole.complete, whole.choices, whole.id) == (True, (), "resp_68b2")


def test_every_fixture_is_tested() -> None:
    names = {path.name for path in FIXTURES.iterdir() if path.suffix in (".sse", ".json")}
    tested = {f"{name}.sse" for name in STREAMED} | {f"{name}.json" for name in MEANT}
    assert names == tested | {"failed.sse", "failed.json", "background.json"}
