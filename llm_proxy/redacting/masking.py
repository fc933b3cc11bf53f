"""Masks values in text that comes piece by piece. What may be the start of a value waits for what follows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from llm_proxy.policy.vocabulary import Detector, Replacement
from llm_proxy.redacting.detectors import find, may_go_on
from llm_proxy.redacting.rules import Rule, redacted
from llm_proxy.redacting.shown import MASK, shown
from llm_proxy.redacting.values import GAP, Word, standing, words_of

_MOST = 16_384
"""Characters that may wait. What would hold more is masked as a whole, up to the next blank."""
_REST = re.compile(r"\S*+")


@dataclass(frozen=True, slots=True)
class Guard:
    """What one caller may not read. Made once per call; `TextMask` holds the state of one text."""

    key: bytes
    values: Mapping[bytes, Replacement] = field(default_factory=dict[bytes, Replacement])
    """Values of classified fields, by their hashes (`values.hashed`)."""
    lengths: frozenset[int] = frozenset()
    """How many letters and digits they have."""
    detectors: tuple[tuple[Detector, Replacement], ...] = ()
    args: tuple[Rule, ...] = ()
    """What is replaced in the arguments of calls that are released."""

    def arguments(self, tool: str, arguments: str) -> str:
        """The arguments of a call of `tool` as its caller gets them."""
        rules = [rule for rule in self.args if rule.fits(tool)]
        return redacted(rules, arguments, self.key)[0] if rules else arguments

    @property
    def masks(self) -> bool:
        """Whether any text is to be looked at."""
        return bool(self.values or self.detectors)


class _Span(NamedTuple):
    start: int
    end: int
    text: str


class TextMask:
    """One text. `feed` its pieces and `end` it: what they return is the text with its values masked."""

    __slots__ = ("_before", "_guard", "_held", "_out", "_swallows")

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._held = ""
        self._before = ""
        """The two characters before what is held: one that begins there may stand behind an escape."""
        self._out = 0
        """How much of what is held was given out already, by `pause`."""
        self._swallows = False
        """What was masked for its size goes on until a blank."""

    @property
    def waiting(self) -> int:
        """Characters that have come and were not given out."""
        return len(self._held) - self._out

    def feed(self, text: str) -> str:
        """What of the text so far can't be the start of a value any more."""
        if self._swallows:
            text = self._swallow(text)
        if not text:
            return ""
        whole = self._held + text
        words = words_of(whole) if self._guard.values else []
        spans = self._spans(whole, words)
        cut = self._cut(whole, words)
        for span in reversed(spans):
            if span.start < cut < span.end:
                cut = span.start
        if len(whole) - cut > _MOST:
            self._swallows = True
            spans = [*[span for span in spans if span.end <= cut], _Span(cut, len(whole), MASK)]
            return self._give(whole, len(whole), spans)
        return self._give(whole, cut, spans)

    def pause(self) -> str:
        """All that waits, since something else is said here; what a value goes on with is masked."""
        whole, out = self._held, self._out
        if not whole:
            return ""
        spans = self._spans(whole, words_of(whole) if self._guard.values else [])
        self._out = len(whole)
        return _masked(whole, out, len(whole), spans)

    def end(self) -> str:
        """All that waits: nothing follows."""
        said = self.pause()
        self._held = self._before = ""
        self._out = 0
        self._swallows = False
        return said

    def _give(self, whole: str, cut: int, spans: list[_Span]) -> str:
        said = _masked(whole, self._out, cut, spans)
        self._before = (self._before + whole[:cut])[-2:]
        self._held = whole[cut:]
        self._out = max(0, self._out - cut)
        return said

    def _swallow(self, text: str) -> str:
        rest = _REST.match(text)
        assert rest is not None
        if rest.end() < len(text):
            self._swallows = False
        self._before = (self._before + text[: rest.end()])[-2:]
        return text[rest.end() :]

    def _spans(self, whole: str, words: list[Word]) -> list[_Span]:
        """What is masked, in order and apart."""
        guard, shift = self._guard, len(self._before)
        looked = self._before + whole
        found = [
            _Span(start - shift, end - shift, shown(how, looked[start:end], kind, guard.key))
            for kind, how in guard.detectors
            for start, end in find(kind, looked)
            if start >= shift
        ]
        for start, end, how in standing(words, guard.values, guard.lengths, guard.key):
            found.append(_Span(start, end, "" if how == "remove" else MASK))
        found.sort()
        spans: list[_Span] = []
        for span in found:
            if spans and span.start < spans[-1].end:
                spans[-1] = _Span(spans[-1].start, max(span.end, spans[-1].end), spans[-1].text)
            else:
                spans.append(span)
        return spans

    def _cut(self, whole: str, words: list[Word]) -> int:
        """Up to where nothing of the text can belong to a value that has only begun."""
        cut = len(whole)
        shift = len(self._before)
        looked = self._before + whole
        for kind, _ in self._guard.detectors:
            cut = min(cut, max(0, may_go_on(kind, looked) - shift))
        longest, size, after = max(self._guard.lengths, default=0), 0, len(whole)
        for word in reversed(words):
            size += len(word.folded)
            if size > longest or after - word.end > GAP:
                break
            cut, after = min(cut, word.start), word.start
        for word in reversed(words):
            if word.end <= cut:
                break
            if word.start < cut:
                cut = word.start
        return cut


def _masked(whole: str, at: int, until: int, spans: list[_Span]) -> str:
    """`whole` from `at` to `until`, where no span goes past, with its spans replaced."""
    pieces: list[str] = []
    for start, end, text in spans:
        if end <= at:
            continue
        if start >= until:
            break
        pieces += (whole[at:start], text)
        at = end
    pieces.append(whole[at:until])
    return "".join(pieces)
