"""Replies as they are kept: a value that comes in pieces is masked in all of them.

A stream is read frame by frame. What its strings say at one place (`choices.delta.content`) is one text, and
what masks that text is cut up again among the pieces. So the stream keeps its form, in any dialect.
"""

from __future__ import annotations

from collections.abc import Iterator

from llm_proxy.redacting.recorded import RecordMask, decoded, spliced
from llm_proxy.redacting.rules import Hit, merged, replaced
from llm_proxy.redacting.strings import Said, Walk
from llm_proxy.wire.seal import MARK
from llm_proxy.wire.sse import FrameTooLarge, SseReader

WITHHELD = b"[redacted]"
"""Stands for a reply that could not be masked piece by piece."""
_STEP = 1 << 20


class _Document:
    """One JSON text of a reply, or one frame's."""

    __slots__ = ("code", "found", "left_out", "strings", "text")

    def __init__(self, data: bytes) -> None:
        self.text, self.code = decoded(data)
        self.found: dict[int, list[Hit]] = {}
        """What is masked of each string, by its place among them."""
        if self.text.lstrip()[:1] in ("{", "["):
            walk = Walk(self.text)
            self.strings, self.left_out = walk.strings(), walk.left_out
        else:
            whole = Said(0, len(self.text), self.text, (), (), is_key=False, is_number=False)
            self.strings, self.left_out = [whole], []

    @property
    def is_json(self) -> bool:
        return bool(self.strings) and self.strings[0].end - self.strings[0].start != len(self.text)

    def written(self) -> bytes:
        """As it is kept."""
        edits = [(start, end, "null") for start, end in self.left_out]
        for n, found in self.found.items():
            said = self.strings[n]
            new = replaced(said.text, merged(found))
            edits.append((said.start, said.end, said.literal(new, self.text) if self.is_json else new))
        return spliced(self.text, edits).encode(self.code, "replace")


def masked_reply(data: bytes, mask: RecordMask) -> bytes | None:
    """A whole reply or a stream, masked; None where there is nothing to mask."""
    if data.lstrip()[:1] in (b"{", b"["):
        document = _Document(data)
        return (
            _kept(data, mask, mask.swept(document.written()))
            if _search([document], mask)
            else _swept(data, mask)
        )
    if data.find(b"data:") < 0:
        return mask.content(data)
    try:
        frames = list(_frames(data))
    except FrameTooLarge:
        return WITHHELD if mask.holds(data) else None
    documents = [_Document(frame_data) for _, frame_data in frames]
    if not _search(documents, mask):
        return _swept(data, mask)
    out = b"".join(
        _reframed(raw, document.written()) if document.found or document.left_out else raw
        for (raw, _), document in zip(frames, documents, strict=True)
    )
    return _kept(data, mask, mask.swept(out))


def _kept(data: bytes, mask: RecordMask, out: bytes) -> bytes | None:
    return None if out == data else out


def _swept(data: bytes, mask: RecordMask) -> bytes | None:
    return _kept(data, mask, mask.swept(data))


def _frames(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each frame as it came, and its data."""
    reader, view = SseReader(), memoryview(data)
    for start in range(0, len(data), _STEP):
        for frame in reader.feed(bytes(view[start : start + _STEP])):
            yield frame.raw, frame.data
    for frame in reader.close():
        yield frame.raw, frame.data


def _reframed(raw: bytes, data: bytes) -> bytes:
    """The frame with other data, each of its other lines as it came."""
    out: list[bytes] = []
    lines = data.split(b"\n")
    for line in raw.splitlines(keepends=True):
        if line.rstrip(b"\r\n").partition(b":")[0] != b"data":
            out.append(line)
            continue
        end = line[len(line.rstrip(b"\r\n")) :]
        out += [b"data: " + each + (end or b"\n") for each in lines]
        lines = []
    return b"".join(out)


def _search(documents: list[_Document], mask: RecordMask) -> bool:
    """Finds what is to be masked; whether there is anything. Texts that come by turns are read by
    themselves, and those of one choice in the order in which they came: a reader may put blocks together."""
    apart: dict[tuple[object, ...], list[tuple[_Document, int]]] = {}
    together: dict[tuple[object, ...], list[tuple[_Document, int]]] = {}
    for d, document in enumerate(documents):
        for n, said in enumerate(document.strings):
            if said.is_key or said.is_number or said.text.startswith(MARK):
                apart[d, n] = [(document, n)]
                continue
            apart.setdefault((said.keys, said.numbers), []).append((document, n))
            choice = said.numbers[:1] if "choices" in said.keys else ()
            together.setdefault((said.keys, choice), []).append((document, n))
    several = [pieces for pieces in together.values() if len(pieces) > 1]
    groups = [*apart.values(), *several]
    found = [_spread(pieces, mask) for pieces in groups]
    return any(found)


def _spread(pieces: list[tuple[_Document, int]], mask: RecordMask) -> bool:
    """Masks one text that was said in these pieces: the first piece of a value has what stands for it."""
    first, n = pieces[0]
    texts = [document.strings[n].text for document, n in pieces]
    found = mask.string(first.strings[n]._replace(text="".join(texts)))
    at, begin = 0, 0
    for (document, n), text in zip(pieces, texts, strict=True):
        end = begin + len(text)
        while at < len(found) and found[at].end <= begin:
            at += 1
        for hit in _until(found, at, end):
            start, stop = max(hit.start, begin), min(hit.end, end)
            if start < stop:
                said = hit.text if hit.start >= begin else ""
                document.found.setdefault(n, []).append(Hit(start - begin, stop - begin, hit.rule, said))
        begin = end
    return bool(found)


def _until(found: list[Hit], at: int, end: int) -> Iterator[Hit]:
    while at < len(found) and found[at].start < end:
        yield found[at]
        at += 1
