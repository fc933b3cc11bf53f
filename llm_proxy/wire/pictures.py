"""How large an inline picture or sound is, read from its header; the picture itself is never decoded."""

from __future__ import annotations

from base64 import b64decode

_SEGMENTS = 512
"""Segments of a JPEG that are stepped over before its frame; profiles and thumbnails take a few dozen."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
"""Markers of a JPEG that have no length behind them."""
_HEAD = 48
_UNPACKED = (1, 3)
"""WAV's forms that hold each sample as it is: integers and fractions. 0xFFFE says more behind the header."""


class _Bytes:
    """What base64 text stands for. Only what is looked at is decoded, wherever it is."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._start = start

    def at(self, start: int, count: int) -> bytes:
        """Up to `count` bytes from `start`. Raises ValueError where that's no base64."""
        first = self._start + start // 3 * 4
        last = self._start + -(-(start + count) // 3) * 4
        piece = self._text[first:last]
        piece += "=" * (-len(piece) % 4)
        return b64decode(piece, validate=True)[start % 3 :][:count]


def picture_size(text: str, start: int = 0) -> tuple[int, int]:
    """Width and height in pixels of a PNG, JPEG, GIF or WebP whose base64 begins at `start`.

    (0, 0) where that can't be told.
    """
    data = _Bytes(text, start)
    try:
        width, height = _size(data, data.at(0, _HEAD))
    except (ValueError, IndexError):
        return 0, 0
    return (width, height) if width > 0 and height > 0 else (0, 0)


def sound_seconds(text: str, start: int = 0) -> float:
    """How long an unpacked WAV sound is, by its samples a second, channels and bits; 0 for any other.

    Its header's byte rate has to be what they come to: no player looks at it, so it could say anything.
    """
    try:
        head = _Bytes(text, start).at(0, _HEAD)
    except ValueError:
        return 0.0
    form = _little(head[44:46] if head[20:22] == b"\xfe\xff" else head[20:22])
    if head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt " or form not in _UNPACKED:
        return 0.0
    rate = _little(head[24:28]) * _little(head[22:24]) * (_little(head[34:36]) // 8)
    return (len(text) - start) * 3 / 4 / rate if rate and rate == _little(head[28:32]) else 0.0


def _size(data: _Bytes, head: bytes) -> tuple[int, int]:
    if head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR":
        return _big(head[16:20]), _big(head[20:24])
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return _little(head[6:8]), _little(head[8:10])
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(head)
    if head[:2] == b"\xff\xd8":
        return _jpeg(data)
    return 0, 0


def _webp(head: bytes) -> tuple[int, int]:
    """The simple lossy form, the lossless one, and the extended one, which names its canvas."""
    match head[12:16]:
        case b"VP8 " if head[23:26] == b"\x9d\x01\x2a":
            return _little(head[26:28]) & 0x3FFF, _little(head[28:30]) & 0x3FFF
        case b"VP8L" if head[20] == 0x2F:
            bits = _little(head[21:25])
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return _little(head[24:27]) + 1, _little(head[27:30]) + 1
        case _:
            return 0, 0


def _jpeg(data: _Bytes) -> tuple[int, int]:
    """Steps from segment to segment up to the frame's header."""
    at = 2
    for _ in range(_SEGMENTS):
        head = data.at(at, 9)
        if len(head) < 4 or head[0] != 0xFF:
            return 0, 0
        marker = head[1]
        if marker in _FRAMES and len(head) == 9:
            return _big(head[7:9]), _big(head[5:7])
        if marker == 0xFF:  # a byte of padding
            at += 1
        elif marker in _BARE:
            at += 2
        else:
            at += 2 + _big(head[2:4])
    return 0, 0


def _big(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _little(raw: bytes) -> int:
    return int.from_bytes(raw, "little")
