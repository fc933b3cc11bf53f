"""Path prefixes: compared segment by segment, however often the receiver percent-decodes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

_MAX_DECODINGS = 4


def normal_path(text: str) -> str | None:
    """`/a/./b//../c` → `/a/c`. None where it climbs above its start, or holds what no path should."""
    if "\\" in text or text.startswith("~") or any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        return None
    segments: list[str] = []
    for segment in text.split("/"):
        if segment == "..":
            if not segments:
                return None
            segments.pop()
        elif segment not in ("", "."):
            segments.append(segment)
    return ("/" if text.startswith("/") else "") + "/".join(segments)


def under(prefixes: tuple[str, ...], text: str) -> bool:
    """Whether the path stays at or below one of the normal `prefixes` in every reading of it.

    A reading is the text itself, each further percent-decoding of it, and their NFKC forms, in which a
    full-width dot is a dot.
    """
    return any(all(_below(prefix, path) for path in _readings(text)) for prefix in prefixes)


def _below(prefix: str, path: str | None) -> bool:
    if path is None or path.startswith("/") != prefix.startswith("/"):
        return False
    return path == prefix or prefix in ("", "/") or path.startswith(prefix + "/")


def _readings(text: str) -> Iterator[str | None]:
    """The normal form of each reading, None for one that has none."""
    for _ in range(_MAX_DECODINGS):
        yield normal_path(text)
        if not text.isascii():
            yield normal_path(unicodedata.normalize("NFKC", text))
        if "%" not in text:
            return
        try:
            decoded = unquote_to_bytes(text).decode()
        except UnicodeDecodeError:
            yield None
            return
        if decoded == text:
            return
        text = decoded
    yield None
