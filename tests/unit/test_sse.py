"""The SSE reader: fields, line ends, cuts and limits."""

from __future__ import annotations

import tracemalloc

import pytest

from llm_proxy.wire.sse import FrameTooLarge, SseFrame, SseReader, read_one, render, says_nothing_else


def read(*chunks: bytes, max_frame: int = 1 << 20) -> list[SseFrame]:
    reader = SseReader(max_frame)
    frames = [frame for chunk in chunks for frame in reader.feed(chunk)]
    return frames + reader.close()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_line_ends(end: bytes) -> None:
    stream = end.join([b"event: ping", b"data: a", b"data:b", b": note", b"id: 7", b"", b"data: c", b"", b""])
    first, second = read(stream)
    assert (first.event, first.data, second.data) == ("ping", b"a\nb", b"c")
    assert first.raw + second.raw == stream


def test_one_space_after_the_colon_is_not_data() -> None:
    assert [frame.data for frame in read(b"data:x\n\ndata: x\n\ndata:  x\n\ndata\n\n")] == [
        b"x",
        b"x",
        b" x",
        b"",
    ]


def test_comment_only_frames_are_kept_and_empty() -> None:
    assert read(b": keep-alive\n\n") == [SseFrame(b": keep-alive\n\n", unread=True)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("large", [b"", b"x" * 100_000])
@pytest.mark.parametrize(
    ("lines", "hides"),
    [
        ([b"data: a"], False),
        ([b"event: ping", b"data: a"], False),
        ([b": OPENROUTER PROCESSING"], False),
        ([b":"], False),
        ([b"id: 7", b"event: result", b":HTTP_STATUS/200", b"data:a"], False),
        ([b"retry: 100"], False),
        ([b"data"], False),
        ([b': {"tool_calls": []}'], True),
        ([b": " + b"x" * 100], True),
        ([b"foo: bar", b"data: a"], True),
        ([b"foo"], True),
        ([b'id: {"a": 1}', b"data: a"], True),
        ([b'event: {"a": 1}', b"data: a"], True),
    ],
)
def test_what_nobody_reads_is_found(lines: list[bytes], hides: bool, end: bytes, large: bytes) -> None:
    (frame,) = read(
        end.join([*lines, b"data: " + large, b"", b""]) if large else end.join([*lines, b"", b""])
    )
    assert says_nothing_else(frame) is not hides


def test_a_byte_order_mark_is_skipped_at_the_start_alone() -> None:
    first, second = read(b"\xef\xbb", b"\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n")
    assert (first.data, first.raw) == (b"a", b"\xef\xbb\xbfdata: a\n\n")
    assert second.data == b""


def test_a_frame_comes_out_with_its_last_byte() -> None:
    reader = SseReader()
    assert reader.feed(b"data: a\n") == []
    assert [frame.data for frame in reader.feed(b"\n")] == [b"a"]
    assert [frame.data for frame in reader.feed(b"data: b\r\n\r\n")] == [b"b"]


def test_a_cr_waits_for_the_lf_that_may_belong_to_it() -> None:
    reader = SseReader()
    assert reader.feed(b"data: a\r\n\r") == []
    assert [frame.raw for frame in reader.feed(b"\ndata: b\r\r")] == [b"data: a\r\n\r\n"]
    (last,) = reader.close()
    assert (last.raw, last.truncated) == (b"data: b\r\r", False)


def test_a_cut_frame_is_marked() -> None:
    whole, cut = read(b"data: a\n\ndata: [DO")
    assert (whole.truncated, cut.truncated, cut.data) == (False, True, b"[DO")


def test_line_ends_left_over_are_no_cut_frame() -> None:
    assert [(frame.raw, frame.truncated) for frame in read(b"data: a\n\n\n")] == [
        (b"data: a\n\n", False),
        (b"\n", False),
    ]


def test_nothing_left_is_no_frame() -> None:
    assert read() == []
    assert read(b"") == []


@pytest.mark.parametrize("chunks", [[b"data: " + b"x" * 50 + b"\n\n"], [b"data: ", b"x" * 50, b"\n\n"]])
def test_a_frame_past_the_limit_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(FrameTooLarge, match="40 bytes"):
        read(*chunks, max_frame=40)


def test_frames_before_one_too_large_come_out_first() -> None:
    reader = SseReader(max_frame=40)
    assert [frame.data for frame in reader.feed(b"data: a\n\ndata: " + b"x" * 50)] == [b"a"]
    with pytest.raises(FrameTooLarge):
        reader.feed(b"x")
    with pytest.raises(FrameTooLarge):
        reader.close()


def test_many_small_frames_in_a_chunk_past_the_limit_are_fine() -> None:
    assert len(read(b"data: a\n\n" * 100, max_frame=40)) == 100


def test_a_refused_frame_is_not_kept_in_memory() -> None:
    reader = SseReader(max_frame=1000)
    with pytest.raises(FrameTooLarge):
        reader.feed(b"x" * 5000)
    assert len(reader._buffer) == 0


@pytest.mark.parametrize(("data", "event"), [(b'{"a":1}', ""), (b"a\nb", "error"), (b"", "")])
def test_a_rendered_frame_reads_back(data: bytes, event: str) -> None:
    raw = render(data, event)
    assert read(raw) == [SseFrame(raw, event, data)]
    assert read_one(raw) == SseFrame(raw, event, data)


LARGE = 1 << 20


@pytest.mark.parametrize("lead", [b"data: ", b"event: message\ndata:", b": note\r\nevent: message\r\ndata: "])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_a_large_frame_is_held_twice_at_most(lead: bytes, end: bytes) -> None:
    """Once as bytes that came, once as the data in them."""
    stream = lead + b"x" * LARGE + end
    chunks = [stream[at : at + (1 << 14)] for at in range(0, len(stream), 1 << 14)]
    reader = SseReader()
    tracemalloc.start()
    try:
        frames = [frame for chunk in chunks for frame in reader.feed(chunk)]
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [len(frame.data) for frame in frames] == [LARGE]
    assert held < 2.05 * LARGE
    assert peak < 2.3 * LARGE


def test_what_a_large_frame_left_is_freed() -> None:
    reader = SseReader()
    frames = reader.feed(b"data: " + b"x" * LARGE + b"\n\ndata: b")
    del frames
    assert reader._buffer.__sizeof__() < 1000


@pytest.mark.parametrize("line", [b"data: a", b"data:a", b"data", b"event: e", b"event", b"dataset: a", b":"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_large_frame_reads_as_a_small_one(line: bytes, end: bytes) -> None:
    rest = end.join([b"event: e", b"data: b", b"id", line, line])
    padding = b":" + b"x" * (1 << 16) + end
    (small,) = read(rest + end + end)
    (large,) = read(padding + rest + end + end)
    assert (large.event, large.data) == (small.event, small.data)


def test_line_ends_in_rendered_data_become_lines_of_it() -> None:
    assert render(b"a\r\nb\rc\n") == b"data: a\ndata: b\ndata: c\ndata: \n\n"
