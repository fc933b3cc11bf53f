"""What one message of the history says, counted part by part, in any dialect."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.pictures import picture_size, sound_seconds
from llm_proxy.wire.request import Media, MediaKind


class Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What most messages are."""

    role: str
    content: str


class Content:
    """What a message's parts add up to, while they are read."""

    __slots__ = ("media", "spoken", "texts")

    def __init__(self) -> None:
        self.spoken: list[str] = []
        """Text parts alone: what the role said."""
        self.texts: list[str] = []
        self.media: list[Media] = []

    def say(self, text: str) -> None:
        if text:
            self.spoken.append(text)
            self.texts.append(text)


_plain = msgspec.json.Decoder(Plain).decode


def read_plain(raw: bytes) -> Plain | None:
    """A message that is a role and a text and nothing else; None for any other.

    Each key stands in it once: a quote inside a string is escaped, so the bytes `"role"` are a key or the
    role's value, and without `\\u` no other spelling of a key exists.
    """
    if raw.count(b'"role"') != 1 or raw.count(b'"content"') != 1 or b"\\u" in raw:
        return None
    try:
        return _plain(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def inline(url: str, kind: MediaKind = MediaKind.IMAGE, detail: str = "") -> Media:
    """What a data URL, or bare base64, holds; a URL or an id of somewhere else holds nothing of it."""
    start = _data_at(url)
    if start is None:
        return Media(detail=detail, kind=kind)
    size = len(url) - start
    if kind is MediaKind.IMAGE:
        width, height = picture_size(url, start)
        return Media(detail=detail, size=size, width=width, height=height)
    seconds = sound_seconds(url, start) if kind is MediaKind.AUDIO else 0.0
    return Media(detail=detail, size=size, kind=kind, seconds=seconds)


def _data_at(url: str) -> int | None:
    """Where the base64 begins in a data URL, or in bare base64, where no scheme stands before it."""
    if url.startswith("data:"):
        return url.find(",") + 1 or len(url)
    return None if "://" in url[:16] else 0
