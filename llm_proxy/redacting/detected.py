"""Detected values in a text, each with what stands for it; in JSON so that the text stays JSON.

A string that holds an escape is looked at as it reads, and only the value itself is replaced in it. A number
that is replaced becomes a string, whole, with its sign, its fraction and its exponent.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from llm_proxy.policy.vocabulary import Detector
from llm_proxy.redacting.detectors import Span, find
from llm_proxy.redacting.fields import TOKEN

NUMBER = re.compile(r"-?[0-9]++(?:\.[0-9]++)?(?:[eE][+\-]?[0-9]++)?")
_decode = json.JSONDecoder(strict=False).decode
_SIGN = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u.{4}|.)", re.DOTALL)
"""One character of a string, escaped."""

Detected = tuple[int, int, str]
"""Where a value stands, and the text to put there."""


class Literal(NamedTuple):
    """A JSON string with escapes: where it stands, its quotes included, and what it says."""

    start: int
    end: int
    text: str

    def written(self, found: Sequence[Span], source: str) -> Iterator[Span]:
        """Where in `source` what is `found` in its text is written."""
        said, at, shift = [0], [self.start + 1], self.start + 1
        for sign in _SIGN.finditer(source, self.start, self.end):
            said.append(sign.start() - shift + 1)
            at.append(sign.end())
            shift += sign.end() - sign.start() - 1
        for span in found:
            a, b = [bisect_right(said, place) - 1 for place in span]
            yield at[a] + span[0] - said[a], at[b] + span[1] - said[b]


def literals(text: str) -> tuple[Literal, ...]:
    """The strings of a JSON text that hold escapes; none where `text` is no JSON."""
    if "\\" not in text or not is_document(text):
        return ()
    spans = [token.span() for token in TOKEN.finditer(text) if text[token.start()] == '"']
    read = [_read(text, *span) for span in spans if text.find("\\", *span) >= 0]
    return tuple([literal for literal in read if literal is not None])


def is_document(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[", '"')


def detected(
    kind: Detector, text: str, strings: tuple[Literal, ...], show: Callable[[str], str]
) -> Iterator[Detected]:
    """The values of this kind in `text`, whose `literals` are `strings`, not in order."""
    for string in strings:
        if found := find(kind, string.text):
            for (a, b), (start, end) in zip(found, string.written(found, text), strict=True):
                yield start, end, json.dumps(show(string.text[a:b]))[1:-1]
    starts = [string.start for string in strings]
    left: list[Span] = []
    for start, end in find(kind, text):
        n = bisect_right(starts, start) - 1
        if n < 0 or end > strings[n].end:
            left.append((start, end))
    if not left or not is_document(text):
        yield from [(start, end, show(text[start:end])) for start, end in left]
        return
    numbers = _numbers(text)
    begins = [start for start, _ in numbers]
    for start, end in left:
        n = bisect_right(begins, start) - 1
        said = show(text[start:end])
        if n >= 0 and end <= numbers[n][1]:
            yield *numbers[n], json.dumps(said)
        else:
            yield start, end, said


def _read(text: str, start: int, end: int) -> Literal | None:
    """None where it is no string after all."""
    try:
        return Literal(start, end, _decode(text[start:end]))
    except ValueError:
        return None


def _numbers(text: str) -> list[Span]:
    """Where the numbers of a JSON text stand: between signs of JSON, and in no string."""
    found: list[Span] = []
    before, last = "[", (-1, -1)
    for token in TOKEN.finditer(text):
        first = text[token.start()]
        if last[0] >= 0 and first in ",]}":
            found.append(last)
        is_number = before in "[,:" and NUMBER.fullmatch(token[0]) is not None
        last = token.span() if is_number else (-1, -1)
        before = first
    return [*found, last] if last[0] >= 0 else found
