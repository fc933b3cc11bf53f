"""The size of a picture is read from its header alone, in every usual format, and never guessed."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.wire.content import inline
from llm_proxy.wire.pictures import picture_size, sound_seconds
from llm_proxy.wire.request import Media, MediaKind
from tests.unit.pictures import encoded, gif, jpeg, png, wav, webp

sizes = st.integers(1, 16_000)


@given(sizes, sizes, st.sampled_from(["png", "gif", "jpeg", "VP8 ", "VP8L", "VP8X"]), st.integers(0, 200_000))
def test_every_format_tells_its_size(width: int, height: int, form: str, before: int) -> None:
    made = {"png": png, "gif": gif}
    raw = (
        made[form](width, height)
        if form in made
        else jpeg(width, height, before=before)
        if form == "jpeg"
        else webp(width, height, form.encode())
    )
    assert picture_size(encoded(raw)) == (width, height)
    assert picture_size("data:image/x;base64," + encoded(raw), 20) == (width, height)


@pytest.mark.parametrize("frame", [0xC0, 0xC1, 0xC2, 0xC9, 0xCF])
def test_every_kind_of_jpeg_frame(frame: int) -> None:
    assert picture_size(encoded(jpeg(640, 480, frame=frame))) == (640, 480)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "====",
        "not base64 at all!",
        "é" * 40,
        encoded(b"%PDF-1.7" + b"\0" * 60),
        encoded(png(0, 5)),
        encoded(png(5, 5))[:20],
        encoded(jpeg(9, 9, frame=0xC4)),
        encoded(b"\xff\xd8" + b"\xff\xe0\x00\x00" * 20_000),
        encoded(b"\xff\xd8" + b"\xff" * 100_000),
        encoded(webp(5, 5, b"VP8?")[:31]),
    ],
)
def test_what_tells_no_size_has_none(text: str) -> None:
    assert picture_size(text) == (0, 0)


@given(st.binary(max_size=200), st.integers(0, 3))
def test_no_bytes_make_it_fail(tail: bytes, cut: int) -> None:
    for head in (
        b"",
        b"\xff\xd8",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBPVP8L",
        b"RIFF\0\0\0\0WAVEfmt ",
    ):
        text = encoded(head + tail)[: -cut or None]
        width, height = picture_size(text)
        assert (width == 0) is (height == 0)
        assert sound_seconds(text) >= 0


def test_a_large_picture_is_not_decoded() -> None:
    text = encoded(jpeg(4_032, 3_024, before=4_000_000) + random.randbytes(12 << 20))
    before = time.perf_counter()
    assert picture_size(text) == (4_032, 3_024)
    assert time.perf_counter() - before < 0.02


def test_sound_tells_its_length_where_its_rate_is_in_its_header() -> None:
    assert sound_seconds(encoded(wav(3))) == pytest.approx(3, abs=0.01)
    assert sound_seconds(encoded(wav(3, form=3))) == pytest.approx(3, abs=0.01)
    assert sound_seconds(encoded(b"ID3" + b"\0" * 400)) == 0


@pytest.mark.parametrize("told", [1, 47_999, 2**32 - 1])
def test_a_rate_that_no_player_looks_at_makes_a_sound_no_shorter(told: int) -> None:
    """Players go by samples, channels and bits; of packed sound (ADPCM and the like) these don't tell."""
    assert sound_seconds(encoded(wav(3, told=told))) == 0
    assert sound_seconds(encoded(wav(3, form=2))) == 0


def test_what_is_inline_is_told_from_what_is_elsewhere() -> None:
    data = encoded(png(30, 20))
    for url in (data, "data:image/png;base64," + data):
        assert inline(url, detail="low") == Media(detail="low", size=len(data), width=30, height=20)
    assert inline("https://example.com/a.png", detail="high") == Media(detail="high")
    assert inline("data:image/png;base64") == Media()
    sound = inline(encoded(wav(2)), MediaKind.AUDIO)
    assert (sound.width, round(sound.seconds)) == (0, 2)
