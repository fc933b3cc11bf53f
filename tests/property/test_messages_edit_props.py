"""Whichever calls of an Anthropic reply are denied, they leave no trace and every other block stays whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.events import CallDelta, Frame
from llm_proxy.chat.reply import Assembly, ChoiceReply
from llm_proxy.policy.gate import Gate
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES
from llm_proxy.wire.sse import SseReader, render

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@dataclass(frozen=True)
class Block:
    """A content block: its start, what fills it, and the same whole."""

    whole: Mapping[str, object]
    empty: Mapping[str, object]
    pieces: Sequence[Mapping[str, object]]
    secret: str = ""
    """Stands in a call's id, name and arguments, and nowhere else."""


@dataclass(frozen=True)
class Case:
    blocks: list[Block]
    denied: dict[tuple[int, int], str] = field(default_factory=dict[tuple[int, int], str])

    def kept(self) -> list[Block]:
        return [b for n, b in enumerate(self.blocks) if b.secret and (0, n) not in self.denied]


def cut(draw: st.DrawFn, text: str, type_: str, key: str) -> list[dict[str, object]]:
    at = draw(st.integers(0, len(text)))
    return [{"type": type_, key: piece} for piece in (text[:at], text[at:])]


@st.composite
def call(draw: st.DrawFn, index: int) -> Block:
    secret = f"s3cr3t{index}y"
    arguments = json.dumps({secret: draw(WORDS) + '"type":"text"'}, ensure_ascii=draw(st.booleans()))
    at = arguments.index(secret) + len(secret)
    head = {"type": "tool_use", "id": f"id_{secret}", "name": f"tool_{secret}"}
    # The cut stays out of the secret, so that looking for it in the bytes means something.
    first: list[dict[str, object]] = [{"type": "input_json_delta", "partial_json": arguments[:at]}]
    pieces = first + cut(draw, arguments[at:], "input_json_delta", "partial_json")
    return Block({**head, "input": json.loads(arguments)}, {**head, "input": {}}, pieces, secret)


@st.composite
def other(draw: st.DrawFn) -> Block:
    words = draw(WORDS)
    match draw(st.sampled_from(["text", "thinking", "server", "result"])):
        case "text":
            empty = {"type": "text", "text": ""}
            return Block({**empty, "text": words}, empty, cut(draw, words, "text_delta", "text"))
        case "thinking":
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            pieces = cut(draw, words, "thinking_delta", "thinking")
            seal = {"type": "signature_delta", "signature": "S=="}
            return Block({**empty, "thinking": words, "signature": "S=="}, empty, [*pieces, seal])
        case "server":
            empty = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
            query = json.dumps({"query": words})
            pieces = cut(draw, query, "input_json_delta", "partial_json")
            return Block({**empty, "input": {"query": words}}, empty, pieces)
        case _:
            whole: dict[str, object] = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
            return Block(whole, whole, [])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    calls = draw(st.lists(st.booleans(), max_size=6))
    blocks = [draw(call(n)) if is_call else draw(other()) for n, is_call in enumerate(calls)]
    denied = {(0, n): f"note {n}." for n, b in enumerate(blocks) if b.secret and draw(st.booleans())}
    return Case(blocks, denied)


def fold(frames: list[Frame]) -> ChoiceReply:
    assembly = Assembly()
    for frame in frames:
        for event in frame.events:
            assembly.add(event)
    assert assembly.unreadable == ""
    (choice,) = assembly.reply().choices
    return choice


def check(case: Case, before: bytes, after: bytes, left: ChoiceReply, was: ChoiceReply) -> None:
    for n, block in enumerate(case.blocks):
        if block.secret:
            assert block.secret.encode() in before
            assert (block.secret.encode() in after) == ((0, n) not in case.denied)
    assert [c.id for c in left.calls] == [b.whole["id"] for b in case.kept()]
    assert [json.loads(c.arguments) for c in left.calls] == [b.whole["input"] for b in case.kept()]
    assert left.reasoning == was.reasoning
    assert [use.id for use in left.server_tools] == [use.id for use in was.server_tools]
    notes = "\n\n".join([note for _, note in sorted(case.denied.items())])
    assert notes in left.text
    assert left.text.replace(notes, "", 1) == was.text if notes else left.text == was.text
    assert left.finish == ("tool_call" if case.kept() or not case.denied else "stop")


@given(cases())
def test_bodies(case: Case) -> None:
    content = [block.whole for block in case.blocks]
    top = {"id": "m", "content": content, "stop_reason": "tool_use"}
    body = json.dumps(top, ensure_ascii=False).encode()
    after = ANTHROPIC_MESSAGES.edit_body(body, case.denied)
    assert (after is body) == (not case.denied)
    read = ANTHROPIC_MESSAGES.read_body
    check(case, body, after, fold([read(after)]), fold([read(body)]))
    edited = json.loads(after)["content"]
    gone = {n for _, n in case.denied}
    notes = [block for block in edited if block not in content]
    assert [block["type"] for block in notes] == ["text"] * bool(gone)
    assert [b for b in edited if b not in notes] == [b for n, b in enumerate(content) if n not in gone]


def event(type_: str, **fields: object) -> bytes:
    data = json.dumps({"type": type_, **fields}, ensure_ascii=False, separators=(",", ":"))
    return render(data.encode(), type_)


def streamed(draw: st.DrawFn, case: Case) -> list[bytes]:
    out = [event("message_start", message={"id": "m", "content": []})]
    for n, block in enumerate(case.blocks):
        out.append(event("content_block_start", index=n, content_block=block.empty))
        for piece in block.pieces:
            out.append(event("content_block_delta", index=n, delta=piece))
            if draw(st.booleans()):
                out.append(event("ping"))
        out.append(event("content_block_stop", index=n))
    out.append(event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 1}))
    return [*out, event("message_stop")]


def frames(stream: bytes) -> list[Frame]:
    read = ANTHROPIC_MESSAGES.frame_reader()
    return [read(sse) for sse in SseReader().feed(stream)]


@given(cases(), st.data())
def test_streams(case: Case, data: st.DataObject) -> None:
    stream = b"".join(data.draw(st.composite(streamed)(case)))
    gate = Gate(judging=True, ordered=True)
    flowing = [frame for frame in frames(stream) if gate.admit(frame)]
    held = gate.open()
    assert not any(isinstance(e, CallDelta) for frame in flowing for e in frame.events)
    out = ANTHROPIC_MESSAGES.edit_frames(held, case.denied)
    if not case.denied:
        assert out == [frame.raw for frame in held]
    after = b"".join([*[frame.raw for frame in flowing], *out])
    check(case, stream, after, fold(frames(after)), fold(frames(stream)))


@given(cases(), st.data())
def test_an_edited_stream_numbers_its_blocks_without_a_gap(case: Case, data: st.DataObject) -> None:
    held = frames(b"".join(data.draw(st.composite(streamed)(case))))
    sent = [
        json.loads(raw.partition(b"data: ")[2]) for raw in ANTHROPIC_MESSAGES.edit_frames(held, case.denied)
    ]
    starts = [e["index"] for e in sent if e["type"] == "content_block_start"]
    assert starts == list(range(len(starts)))
    assert [e["index"] for e in sent if e["type"] == "content_block_stop"] == starts
    assert {e["index"] for e in sent if e["type"] == "content_block_delta"} <= set(starts)
