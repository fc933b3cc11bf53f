"""Where the tool results of one message stand in its bytes: each one's content, and the texts in it.

Content is a string, or a list of parts that have a `text`, or whatever else a caller sends: that is one text
as it stands, being JSON. The message is one that `message_facts` has read, so that no key stands in it twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from llm_proxy.wire.lenient import as_text, string
from llm_proxy.wire.spans import Edit, Span, array_spans, object_spans

_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Slice(NamedTuple):
    """A text in a message: a JSON string (`quoted`, with its quotes), or JSON that is read as text."""

    start: int
    end: int
    text: str
    quoted: bool

    def edit(self, new: str) -> Edit:
        """What puts another text in its place."""
        return self.start, self.end, _encode(new) if self.quoted else new.encode("utf-8", "replace")


class ResultAt(NamedTuple):
    """One tool result: the id of its call, how many bytes its content has, and its texts."""

    id: str
    size: int
    digest: str
    """SHA-256 (hex) of what it says, however that is escaped or cut into parts."""
    slices: tuple[Slice, ...]


def members_at(raw: bytes, start: int = 0) -> dict[str, tuple[msgspec.Raw, Span]]:
    """The values of the object at `raw[start:]`, each with where it stands; none where that is no object."""
    begin = start
    while begin < len(raw) and raw[begin] in b" \t\r\n":
        begin += 1
    if raw[begin : begin + 1] != b"{":
        return {}
    values = _raws(raw[begin:] if begin else raw)
    spans = object_spans(raw, values, begin)
    return {key: (value, spans[key]) for key, value in values.items()}


def result_at(raw: bytes, id_: str, at: Span) -> ResultAt:
    """The result whose content stands at `at` in the message `raw`."""
    start, end = at
    slices: list[Slice] = []
    digest = hashlib.sha256()
    value = msgspec.Raw(raw[start:end])
    if raw[start : start + 1] == b"[":
        parts = _array(value)
        for begin, until in array_spans(raw, start, parts):
            found = _part(raw, begin, until)
            slices += [found] if found else []
            digest.update(found.text.encode("utf-8", "surrogatepass") if found else raw[begin:until])
            digest.update(b"\n")
    else:
        slices.append(_slice(raw, start, end))
        digest.update(slices[0].text.encode("utf-8", "surrogatepass") + b"\n")
    return ResultAt(id_, end - start, digest.hexdigest(), tuple(slices))


def nothing(id_: str) -> ResultAt:
    """A result without content."""
    return ResultAt(id_, 0, hashlib.sha256(b"\n").hexdigest(), ())


_DATA = frozenset(
    {"image", "image_url", "input_image", "computer_screenshot", "input_audio", "file", "input_file"}
)


def _part(raw: bytes, start: int, end: int) -> Slice | None:
    """The text of one part; None where the part is a picture or a file."""
    part = members_at(raw[:end], start)
    if "text" in part and string(part["text"][0]) is not None:
        return _slice(raw, *part["text"][1])
    kind = string(part["type"][0]) if "type" in part else None
    return None if kind in _DATA else _slice(raw, start, end)


def _slice(raw: bytes, start: int, end: int) -> Slice:
    text = string(msgspec.Raw(raw[start:end]))
    if text is None:
        null = raw[start:end] == b"null"
        return Slice(start, end, "" if null else as_text(raw[start:end]), quoted=False)
    return Slice(start, end, text, quoted=True)


def text_at(values: Mapping[str, tuple[msgspec.Raw, Span]], key: str) -> str:
    """The string under `key`; any other value's own JSON text, nothing for null."""
    if key not in values:
        return ""
    raw = values[key][0]
    read = string(raw)
    if read is not None:
        return read
    return "" if bytes(raw) == b"null" else as_text(bytes(raw))
