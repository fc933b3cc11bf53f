"""Headers of pictures and sounds, in base64, that say what a test wants them to, and nothing behind them."""

from __future__ import annotations

import struct
from base64 import b64encode


def encoded(raw: bytes) -> str:
    return b64encode(raw).decode()


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02\0\0\0" * 5


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0" * 40


def jpeg(width: int, height: int, *, before: int = 0, frame: int = 0xC2) -> bytes:
    """`before`: bytes of profiles and thumbnails that stand before the frame."""
    segments = b""
    while before > 0:
        length = min(before, 60_000)
        segments += b"\xff\xe2" + struct.pack(">H", length + 2) + b"\x5a" * length
        before -= length
    head = struct.pack(">BBHBHH", 0xFF, frame, 17, 8, height, width)
    return b"\xff\xd8" + segments + b"\xff\xff" + head + b"\x03" * 10 + b"\0" * 40


def webp(width: int, height: int, form: bytes) -> bytes:
    match form:
        case b"VP8 ":
            inner = b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)
        case b"VP8L":
            inner = b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14)
        case _:
            inner = b"\0" * 4 + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\0\0\0\0WEBP" + form + struct.pack("<I", len(inner)) + inner + b"\0" * 40


def wav(seconds: float, rate: int = 48_000, *, told: int | None = None, form: int = 1) -> bytes:
    """`rate` bytes a second, one channel of 16 bits; the header says `told` of it."""
    shape = struct.pack("<IHHIIHH", 16, form, 1, rate // 2, rate if told is None else told, 2, 16)
    return b"RIFF\0\0\0\0WAVEfmt " + shape + b"data\0\0\0\0" + b"\0" * int(seconds * rate)
