"""Denied tool calls taken out of OpenAI chat replies, whole and streamed."""

from __future__ import annotations

import json

import pytest

from llm_proxy.chat.events import Frame
from llm_proxy.wire.openai_chat.edit import edit_body, edit_frames
from llm_proxy.wire.openai_chat.reply import read_frame
from llm_proxy.wire.sse import read_one, render

NOTE = "NOT EXECUTED: send is denied by rule exfil"
SAFE: dict[str, object] = {
    "id": "c1",
    "type": "function",
    "function": {"name": "read", "arguments": "{}"},
    "vendor": {"sig": "S=="},
}
EVIL: dict[str, object] = {
    "id": "c2",
    "type": "function",
    "function": {"name": "send", "arguments": '{"to":"x"}'},
}


def body(*choices: dict[str, object]) -> bytes:
    return json.dumps({"id": "x", "vendor": 1.0, "choices": choices, "usage": {"prompt_tokens": 1}}).encode()


def choice(index: int = 0, finish: str = "tool_calls", **message: object) -> dict[str, object]:
    return {
        "index": index,
        "message": {"role": "assistant", **message},
        "logprobs": None,
        "finish_reason": finish,
    }


def edited(source: bytes, denied: dict[tuple[int, int], str]) -> list[dict[str, object]]:
    return json.loads(edit_body(source, denied))["choices"]


def test_nothing_denied_is_the_same_object() -> None:
    source = body(choice(tool_calls=[SAFE]))
    assert edit_body(source, {}) is source
    assert edit_body(source, {(0, 5): NOTE, (3, 0): NOTE, (0, -1): NOTE}) is source


def test_a_lone_call_becomes_a_note_and_the_turn_ends() -> None:
    (left,) = edited(body(choice(content=None, tool_calls=[EVIL])), {(0, 0): NOTE})
    assert left == choice(finish="stop", content=NOTE)


def test_an_allowed_sibling_stays_verbatim() -> None:
    source = body(
        {**choice(content="Sure.", tool_calls=[EVIL, SAFE]), "logprobs": {"content": [{"token": "send"}]}}
    )
    (left,) = edited(source, {(0, 0): NOTE})
    expected = choice(content=f"Sure.\n\n{NOTE}", tool_calls=[SAFE])
    del expected["logprobs"]
    assert left == expected
    assert json.dumps(SAFE).encode() in edit_body(source, {(0, 0): NOTE})


def test_the_rest_of_the_body_stays_verbatim() -> None:
    source = body(choice(tool_calls=[EVIL]), choice(1, "stop", content="other"))
    top = json.loads(edit_body(source, {(0, 0): NOTE}))
    assert (top["id"], top["vendor"], top["usage"]) == ("x", 1.0, {"prompt_tokens": 1})
    assert b'"vendor":1.0' in edit_body(source, {(0, 0): NOTE})
    assert top["choices"][1] == choice(1, "stop", content="other")


def test_content_parts_get_a_part() -> None:
    part = {"type": "text", "text": "Sure."}
    (left,) = edited(body(choice(content=[part], tool_calls=[EVIL])), {(0, 0): NOTE})
    assert left["message"] == {"role": "assistant", "content": [part, {"type": "text", "text": NOTE}]}


def test_two_notes_of_one_choice_stand_apart() -> None:
    (left,) = edited(body(choice(tool_calls=[EVIL, EVIL])), {(0, 0): "a", (0, 1): "b"})
    assert left["message"] == {"role": "assistant", "content": "a\n\nb"}


def test_a_cut_short_choice_stays_one() -> None:
    (left,) = edited(body(choice(finish="length", tool_calls=[EVIL])), {(0, 0): NOTE})
    assert left["finish_reason"] == "length"


def test_the_legacy_form() -> None:
    (left,) = edited(body(choice(finish="function_call", function_call=EVIL["function"])), {(0, -1): NOTE})
    assert left == choice(finish="stop", content=NOTE)


BASE: dict[str, object] = {"id": "x", "object": "chat.completion.chunk", "created": 5, "model": "m"}


def frame(*choices: dict[str, object], **top: object) -> Frame:
    data = json.dumps(
        {**BASE, "choices": choices, "obfuscation": "zz", **top}, separators=(",", ":")
    ).encode()
    return read_frame(read_one(render(data)))


def delta(index: int = 0, finish: str | None = None, **fields: object) -> dict[str, object]:
    return {"index": index, "delta": fields, "finish_reason": finish}


def calls(*items: dict[str, object], index: int = 0, finish: str | None = None) -> dict[str, object]:
    return delta(index, finish, tool_calls=list(items))


def part(index: int, arguments: str, **call: object) -> dict[str, object]:
    return {"index": index, "function": {"arguments": arguments}, **call}


def sent(frames: list[Frame], denied: dict[tuple[int, int], str], *spoken: int) -> list[dict[str, object]]:
    return [json.loads(read_one(raw).data) for raw in edit_frames(frames, denied, spoken)]


def note(text: str = NOTE, index: int = 0) -> dict[str, object]:
    return {**BASE, "choices": [delta(index, content=text)]}


def chunk(*choices: dict[str, object]) -> dict[str, object]:
    return {**BASE, "choices": list(choices), "obfuscation": "zz"}


DONE = Frame(b"data: [DONE]\n\n")


def test_nothing_denied_leaves_frames_as_they_are() -> None:
    frames = [
        frame(calls({**EVIL, "index": 0})),
        Frame(b": note\n\n"),
        frame(delta(finish="tool_calls")),
        DONE,
    ]
    assert edit_frames(frames, {}) == [f.raw for f in frames]


def test_a_lone_streamed_call_becomes_a_note_before_the_finish() -> None:
    frames = [
        frame(calls({"index": 0, "id": "c2", "function": {"name": "send", "arguments": ""}})),
        frame(calls(part(0, '{"to":'))),
        frame(calls(part(0, '"x"}'))),
        frame(delta(finish="tool_calls")),
    ]
    assert sent(frames, {(0, 0): NOTE}) == [note(), chunk(delta(finish="stop"))]


def test_a_note_after_text_starts_with_an_empty_line() -> None:
    frames = [frame(calls({**EVIL, "index": 0}, {**EVIL, "index": 1}, finish="tool_calls"))]
    assert sent(frames, {(0, 0): "a", (0, 1): "b"}, 0) == [
        note("\n\na"),
        note("\n\nb"),
        chunk(delta(finish="stop")),
    ]
    assert sent(frames, {(0, 0): "a", (0, 1): "b"})[:2] == [note("a"), note("\n\nb")]


def test_the_first_chunks_role_stays() -> None:
    first = frame(delta(role="assistant", content=None, tool_calls=[{**EVIL, "index": 0}]))
    assert sent([first], {(0, 0): NOTE}) == [chunk(delta(role="assistant", content=None)), note()]


def test_interleaved_calls_with_a_late_name() -> None:
    signature = {"extra_content": {"google": {"thought_signature": "S=="}}}
    frames = [
        frame(
            calls({"index": 0, "id": "c2", "function": {"arguments": ""}}, part(1, "", id="c1", **signature))
        ),
        frame(calls(part(1, '{"p"'), part(0, '{"to"'))),
        frame(calls({"index": 0, "function": {"name": "send"}}, {"index": 1, "function": {"name": "read"}})),
        frame(calls(part(1, ":1}"), part(0, ':"x"}'))),
        frame(delta(finish="tool_calls")),
    ]
    assert sent(frames, {(0, 0): NOTE}) == [
        chunk(calls(part(0, "", id="c1", **signature))),
        chunk(calls(part(0, '{"p"'))),
        chunk(calls({"index": 0, "function": {"name": "read"}})),
        chunk(calls(part(0, ":1}"))),
        note(),
        chunk(delta(finish="tool_calls")),
    ]


def test_only_the_choice_with_the_denied_call_changes() -> None:
    both = frame(calls({**EVIL, "index": 0}), calls({**SAFE, "index": 0}, index=1), delta(2, content="hi"))
    end = frame(delta(0, "tool_calls"), delta(1, "tool_calls"), delta(2, "stop"))
    assert sent([both, end], {(0, 0): NOTE}) == [
        chunk(calls({**SAFE, "index": 0}, index=1), delta(2, content="hi")),
        note(),
        chunk(delta(0, "stop"), delta(1, "tool_calls"), delta(2, "stop")),
    ]


def test_frames_that_need_no_change_stay_byte_identical() -> None:
    text = Frame(b'data: {"choices" : [ {"index":0,"delta":{"content":"hi"}} ] }\n\n')
    usage = frame(usage={"prompt_tokens": 1})
    comment = Frame(b": note\n\n")
    out = edit_frames([frame(calls({**EVIL, "index": 0})), text, comment, usage, DONE], {(0, 0): NOTE})
    assert out[:3] == [text.raw, comment.raw, usage.raw]
    assert json.loads(read_one(out[3]).data) == note()
    assert out[4:] == [DONE.raw]


def test_logprobs_of_an_edited_choice_go() -> None:
    frames = [
        frame(calls({**EVIL, "index": 0})),
        frame({**delta(), "logprobs": {"content": [{"token": "send"}]}}),
        frame({**delta(content="a"), "logprobs": {"content": [{"token": "a"}]}}),
        frame({**delta(1, content="b"), "logprobs": {"content": [{"token": "b"}]}}),
    ]
    assert sent(frames, {(0, 0): NOTE}) == [
        chunk(delta(content="a")),
        chunk({**delta(1, content="b"), "logprobs": {"content": [{"token": "b"}]}}),
        note(),
    ]


def test_usage_in_the_calls_own_frame_stays() -> None:
    (kept, _) = sent([frame(calls({**EVIL, "index": 0}), usage={"prompt_tokens": 1})], {(0, 0): NOTE})
    assert kept == {**chunk(delta()), "usage": {"prompt_tokens": 1}}


def test_the_streamed_legacy_form() -> None:
    frames = [
        frame(delta(function_call={"name": "send", "arguments": ""})),
        frame(delta(function_call={"arguments": '{"to":"x"}'})),
        frame(delta(finish="function_call")),
    ]
    assert sent(frames, {(0, -1): NOTE}) == [note(), chunk(delta(finish="stop"))]


def test_calls_without_an_index_are_matched_by_id() -> None:
    first = frame(calls({k: v for k, v in EVIL.items() if k != "index"}))
    second = frame(calls(SAFE))
    index = first.events[0].index  # pyright: ignore[reportAttributeAccessIssue]
    assert sent([first, second], {(0, index): NOTE}) == [chunk(calls(SAFE)), note()]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_line_ends_and_multi_line_data(end: bytes) -> None:
    line = end[: len(end) // 2]
    data = line.join([b"event: x", b'data: {"choices":[{"index":0,', b'data: "delta":{"role":"assistant",'])
    raw = data + line + b'data: "tool_calls":[{"index":0,"function":{"name":"send"}}]}}]}' + end
    out = edit_frames([Frame(raw)], {(0, 0): NOTE})
    assert read_one(out[0]).event == "x"
    assert json.loads(read_one(out[0]).data) == {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}


def test_a_frame_that_cannot_be_read_is_not_released() -> None:
    broken = Frame(b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"name":"send"\n\n')
    assert edit_frames([broken, DONE], {(0, 0): NOTE}) == [DONE.raw]


def test_a_blank_that_json_does_not_know_is_left_out() -> None:
    """Readers of streams strip a form feed, and so does what edits them."""
    data = json.dumps({**BASE, "choices": [calls({**EVIL, "index": 0})]}).encode()
    frame = read_frame(read_one(b"data: \x0c" + data + b"\n\n"))
    assert len(frame.events) == 1
    out = b"".join(edit_frames([frame, DONE], {(0, 0): NOTE}))
    assert b"send is denied" in out
    assert b'"to' not in out
