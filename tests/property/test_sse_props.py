"""Any cutting of a stream gives the same frames, they mean what the standard says, and no byte is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from llm_proxy.wire import sse
from llm_proxy.wire.sse import FrameTooLarge, SseFrame, SseReader, read_one, render

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
        b"data",
        b"data\n",
        b"event",
        b"event:",
        b" data: x",
        b"dataset: x",
        b"\x00",
        b"\xe2\x82",
        b"\x0b\x0c\x1c\xc2\x85",
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


Meaning = tuple[str, str]
"""An event as it's dispatched: its type, empty where the stream names none, and its data."""


def standard(stream: bytes) -> Iterator[Meaning]:
    """The events of a stream, slowly and by the letter of the WHATWG HTML standard, 9.2.6.

    One difference: an event that the stream ends inside of is not discarded.
    """
    # "Streams must be decoded using the UTF-8 decode algorithm", which strips one byte order mark.
    text = stream.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    data = ""
    kind = ""
    seen = False
    for line in [*re.split("\r\n|\n|\r", text), ""]:
        if line == "":
            if seen:  # "if the data buffer is an empty string, … return"
                yield kind, data[:-1] if data.endswith("\n") else data
            data, kind, seen = "", "", False
            continue
        if line.startswith(":"):
            continue
        field, colon, value = line.partition(":")
        if colon and value.startswith(" "):
            value = value[1:]
        match field:
            case "event":
                kind = value
            case "data":
                data += value + "\n"
                seen = True
            case _:
                pass


def meaning(frames: list[SseFrame]) -> list[Meaning]:
    """What the frames say, less those without data. Their bytes are decoded as the standard has it."""
    return [
        (frame.event, frame.data.decode("utf-8", "replace"))
        for n, frame in enumerate(frames)
        if _has_data(frame.raw.removeprefix(b"\xef\xbb\xbf") if n == 0 else frame.raw)
    ]


def _has_data(raw: bytes) -> bool:
    return any(line == b"data" or line.startswith(b"data:") for line in raw.splitlines())


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=20))
@example(b"data: a\r\n\rdata: b\r\r\ndata: c", [3, 9, 10])
@example(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [1, 2])
@example(b"data\n\ndata\ndata\n\ndata:", [])
@example(b"\n\n\xef\xbb\xbfdata:", [])
def test_frames_mean_what_the_standard_says(stream: bytes, places: list[int]) -> None:
    frames, _ = read(cut(stream, places))
    assert meaning(frames) == list(standard(stream))


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=20))
def test_any_bytes_mean_what_the_standard_says(stream: bytes, places: list[int]) -> None:
    assert meaning(read(cut(stream, places))[0]) == list(standard(stream))


@given(STREAMS)
def test_large_frames_are_read_as_small_ones(stream: bytes) -> None:
    for truncated in (False, True):
        assert sse._large_frame(stream, truncated=truncated) == sse._frame(stream, truncated=truncated)


@given(st.text(max_size=40), st.sampled_from(["", "error", "response.done"]))
@example("a\n", "")
@example("\r\n\r", "")
@example(" a\x0b\x85", "")
def test_what_is_rendered_reads_back(text: str, event: str) -> None:
    data = text.encode("utf-8", "replace")
    raw = render(data, event)
    frames, _ = read([raw])
    assert [(frame.event, frame.data) for frame in frames] == [(event, re.sub(rb"\r\n|\r", b"\n", data))]
    assert frames == [read_one(raw)]
