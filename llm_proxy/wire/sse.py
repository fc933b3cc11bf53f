"""Server-sent events: an incremental reader that keeps every byte it was given.

Follows https://html.spec.whatwg.org/multipage/server-sent-events.html, with one difference: a frame that
the stream ends inside of is not dropped but handed over, marked `truncated`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

MAX_FRAME = 32 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_LONGEST_END = 4
"""Bytes in the longest frame end, `\\r\\n\\r\\n`."""
_END = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_LONGEST_NAME = len(b"event:")
_WORD = re.compile(r"[\w.-]{1,64}", re.ASCII)
_HARMLESS = re.compile(rb"(?:data|event)(?::.*)?|(?:id|retry)?:[ \w./-]{0,64}", re.ASCII)
"""A line that is read, and one with no more than words: an id, or a comment that keeps a connection open."""
_LARGE = 1 << 16
"""Bytes from which a frame is worth reading with care for memory."""


class FrameTooLarge(ValueError):
    """A frame passed the reader's limit. Every frame before it was returned first."""


class SseFrame(msgspec.Struct, frozen=True, gc=False):
    """One event or comment block. `raw` is verbatim with its blank line; `data` lines are joined by LF."""

    raw: bytes
    event: str = ""
    data: bytes = b""
    truncated: bool = False
    """The stream ended before this frame's blank line did."""
    unread: bool = False
    """It has lines that say nothing to a reader: comments, fields of another name."""


class SseReader:
    """Cuts a byte stream into frames, the same however it arrives; their `raw`s together equal what was fed.

    A frame ends at the first pair of line ends, whichever of LF, CRLF and CR they are. Memory is bounded by
    `max_frame` plus one chunk, time is linear in the bytes fed. Raises `FrameTooLarge` from the call after
    the one that returned the last good frame, or at once where there was none to return.
    """

    __slots__ = ("_buffer", "_has_cr", "_max", "_scanned", "_started", "_too_large")

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._has_cr = False
        self._started = False
        self._too_large = False
        self._max = max_frame

    def feed(self, chunk: bytes) -> list[SseFrame]:
        """Take the next bytes; return the frames they complete."""
        # `find`, since `in` first tries to read the bytes as a number, which takes longer than the search.
        if (
            self._buffer
            or not self._started
            or self._too_large
            or len(chunk) > self._max
            or chunk.find(b"\r") >= 0
        ):
            return self._feed_slowly(chunk)
        if chunk.find(b"\n") == len(chunk) - 2 and chunk.startswith(b"data: ") and chunk.endswith(b"\n\n"):
            return [SseFrame(chunk, "", chunk[6:-2])]
        *blocks, rest = chunk.split(b"\n\n")
        if rest:
            self._buffer += rest
            self._scanned = max(0, len(rest) - 1)
        return [
            SseFrame(block + b"\n\n", "", block[6:])
            if block.startswith(b"data: ") and block.find(b"\n") < 0
            else _named_frame(block)
            for block in blocks
        ]

    def close(self) -> list[SseFrame]:
        """The stream ended; return what is left, marked `truncated` unless it is only line ends."""
        frames = self._cut(final=True)
        rest = bytes(self._buffer)
        self._buffer.clear()
        if rest and not self._too_large:
            frames.append(self._block(rest, truncated=bool(rest.strip(b"\r\n"))))
        self._raise_if_too_large(frames)
        return frames

    def _feed_slowly(self, chunk: bytes) -> list[SseFrame]:
        self._raise_if_too_large([])
        self._buffer += chunk
        self._has_cr = self._has_cr or b"\r" in chunk
        frames = self._cut(final=False)
        if len(self._buffer) > self._max:
            self._too_large = True
        if self._too_large:
            self._buffer.clear()
        self._raise_if_too_large(frames)
        return frames

    def _raise_if_too_large(self, frames: list[SseFrame]) -> None:
        if self._too_large and not frames:
            raise FrameTooLarge(f"An event of the stream is larger than {self._max} bytes")

    def _cut(self, *, final: bool) -> list[SseFrame]:
        """Take every complete frame off the buffer."""
        frames: list[SseFrame] = []
        start = 0
        while not self._too_large:
            end = self._end(final=final)
            if end < 0:
                break
            if end - start > self._max:
                self._too_large = True
                break
            raw = self._slice(start, end)
            if end == len(self._buffer):
                self._buffer.clear()  # now, so that a large frame isn't held beside what is read from it
                self._scanned = 0
                self._has_cr = False
                frames.append(self._block(raw))
                return frames
            frames.append(self._block(raw))
            start = self._scanned = end
        if start:
            del self._buffer[:start]
            self._scanned -= start
            self._has_cr = self._has_cr and bool(self._buffer)
        return frames

    def _slice(self, start: int, end: int) -> bytes:
        """Copies once, where slicing the buffer would copy twice."""
        with memoryview(self._buffer) as view:
            return bytes(view[start:end])

    def _end(self, *, final: bool) -> int:
        """Where the frame being scanned ends, or -1. `_scanned` moves past what need not be seen again."""
        buffer = self._buffer
        if not self._has_cr:
            found = buffer.find(b"\n\n", self._scanned)
            if found >= 0:
                return found + 2
        elif match := _END.search(buffer, self._scanned):
            end = match.end()
            if final or end < len(buffer) or buffer[-1] != ord("\r"):
                return end
            self._scanned = match.start()  # a LF may follow and belong to this CR
            return -1
        self._scanned = max(self._scanned, len(buffer) - _LONGEST_END + 1)
        return -1

    def _block(self, raw: bytes, *, truncated: bool = False) -> SseFrame:
        if self._started:
            return _frame(raw, truncated=truncated)
        self._started = True
        if not raw.startswith(_BOM):
            return _frame(raw, truncated=truncated)
        parsed = _frame(raw[len(_BOM) :], truncated=truncated)
        return SseFrame(raw, parsed.event, parsed.data, truncated, parsed.unread)


def says_nothing_else(frame: SseFrame) -> bool:
    """Whether the frame says nothing but what was read of it, so that nothing hides there."""
    if frame.event and not _WORD.fullmatch(frame.event):
        return False
    return not frame.unread or all(
        _HARMLESS.fullmatch(line) for line in frame.raw.removeprefix(_BOM).splitlines() if line
    )


def render(data: bytes, event: str = "") -> bytes:
    """One frame that carries `data`, whose line ends become LF."""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data) if event else b"data: %b\n\n" % data


def read_one(raw: bytes, *, means: bool = True) -> SseFrame:
    """The frame whose verbatim bytes these are.

    A BOM at its start is skipped where the frame `means` something: one that is not the stream's first is no
    data to anybody.
    """
    if raw.startswith(_BOM) and not means:
        return SseFrame(raw)
    parsed = _frame(raw.removeprefix(_BOM))
    return SseFrame(raw, parsed.event, parsed.data, unread=parsed.unread)


def _named_frame(block: bytes) -> SseFrame:
    """A frame without its end: quickly where it's a name and one line of data, as most are. Holds no CR."""
    end = block.find(b"\n") + 1
    if block.startswith(b"event: ") and block.startswith(b"data: ", end) and block.find(b"\n", end) < 0:
        return SseFrame(block + b"\n\n", block[7 : end - 1].decode("utf-8", "replace"), block[end + 6 :])
    return _frame(block + b"\n\n")


def _frame(raw: bytes, *, truncated: bool = False) -> SseFrame:
    if len(raw) >= _LARGE:
        return _large_frame(raw, truncated=truncated)
    event, unread = "", False
    data: list[bytes] = []
    for line in raw.splitlines():
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            event = value.removeprefix(b" ").decode("utf-8", "replace")
        elif line:
            unread = True
    return SseFrame(raw, event, b"\n".join(data), truncated, unread)


def _large_frame(raw: bytes, *, truncated: bool) -> SseFrame:
    """The same, with one copy of the data instead of several."""
    event, unread = "", False
    data: list[memoryview] = []
    view = memoryview(raw)
    for start, end in _lines(raw):
        colon = raw.find(b":", start, min(end, start + _LONGEST_NAME))
        name = raw[start : min(end if colon < 0 else colon, start + _LONGEST_NAME)]
        if name not in (b"data", b"event"):
            unread = unread or end > start
            continue
        value = start + len(name) + (colon >= 0)
        value += raw.startswith(b" ", value, end)
        if name == b"data":
            data.append(view[value:end])
        else:
            event = raw[value:end].decode("utf-8", "replace")
    return SseFrame(raw, event, b"\n".join(data), truncated, unread)


def _lines(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where each line starts and ends. CRLF counts as two line ends, with an empty line between."""
    start, cr, lf = 0, -1, -1
    while start < len(raw):
        if cr < start:
            cr = _find(raw, b"\r", start)
        if lf < start:
            lf = _find(raw, b"\n", start)
        end = min(cr, lf)
        yield start, end
        start = end + 1


def _find(raw: bytes, end: bytes, start: int) -> int:
    found = raw.find(end, start)
    return len(raw) if found < 0 else found
