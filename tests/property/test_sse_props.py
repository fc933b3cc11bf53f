"""Any cutting of a stream gives the same frames, and no byte is lost."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.wire.sse import FrameTooLarge, SseFrame, SseReader

PIECES = st.sampled_from(
    [
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\r\n\r\n",
        b"\xef\xbb\xbf",
        b":",
        b": note",
        b"data:",
        b"data: ",
        b'data: {"a":1}\n\n',
        b"event: error",
        b"id: 1",
        b"retry",
        b"x",
        b" ",
        b"\xff",
        "ü€".encode(),
    ]
)
STREAMS = st.lists(PIECES, max_size=30).map(b"".join)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


def read(chunks: list[bytes], max_frame: int = 1 << 20) -> tuple[list[SseFrame], bool]:
    """Every frame, and whether one was too large."""
    reader = SseReader(max_frame)
    frames: list[SseFrame] = []
    try:
        for chunk in chunks:
            frames += reader.feed(chunk)
        frames += reader.close()
    except FrameTooLarge:
        return frames, True
    return frames, False


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=20))
def test_any_cutting_gives_the_same_frames(stream: bytes, places: list[int]) -> None:
    whole, _ = read([stream])
    assert read(cut(stream, places))[0] == whole
    assert read([stream[at : at + 1] for at in range(len(stream))])[0] == whole


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=20))
def test_the_frames_hold_every_byte(stream: bytes, places: list[int]) -> None:
    frames, _ = read(cut(stream, places))
    assert b"".join(frame.raw for frame in frames) == stream
    assert not any(frame.truncated for frame in frames[:-1])


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=20), st.integers(1, 40))
def test_the_limit_falls_on_the_same_frame_however_cut(stream: bytes, places: list[int], limit: int) -> None:
    whole, too_large = read([stream], limit)
    assert read(cut(stream, places), limit) == (whole, too_large)
    assert all(len(frame.raw) <= limit for frame in whole)
