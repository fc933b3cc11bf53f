"""Tool results as they stand in one message, looked at once: what each rule finds, whatever their tool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from llm_proxy.redacting.fields import string_of, values_at
from llm_proxy.redacting.rules import Hit, Redaction, Rule, hits, merged, replaced
from llm_proxy.redacting.values import Kept, kept, number_spellings
from llm_proxy.wire.results import ResultAt, Slice
from llm_proxy.wire.spans import Edit

_EACH = 200
"""Bytes of a result, a hit or a value, about."""
_WIDTH = 2
"""Bytes of a character, about."""
MOST_VALUES = 2_000
"""Values of classified fields that one result may bring into a run."""


class TooManyValues(Exception):
    """A result holds more values of classified fields than a run may be given at once."""

    def __init__(self, result: str) -> None:
        super().__init__(result)
        self.result = result


class Scanned(NamedTuple):
    """One result. Its texts are kept only where a rule finds something in them."""

    id: str
    size: int
    digest: str
    found: tuple[tuple[Slice, tuple[Hit, ...]], ...]
    """Texts, and what the rules for results find in each."""
    values: tuple[tuple[Kept, ...], ...]
    """For each rule of a field in replies what is to be kept of its values."""

    @property
    def kept(self) -> int:
        """Bytes that it takes in memory, about."""
        hits = sum(len(found) for _, found in self.found)
        texts = sum(len(slice_.text) * _WIDTH for slice_, _ in self.found)
        values = sum(len(of_rule) for of_rule in self.values)
        return _EACH + len(self.id) + texts + _EACH * (hits + values)

    def edits(self, rules: Sequence[Rule], tool: str | None) -> list[Edit]:
        """What redacts the result of `tool` in its message."""
        edits: list[Edit] = []
        for slice_, found in self.found:
            if chosen := merged([hit for hit in found if rules[hit.rule].fits(tool)]):
                edits.append(slice_.edit(replaced(slice_.text, chosen)))
        return edits

    def counts(self, rules: Sequence[Rule], tool: str | None) -> dict[str, int]:
        """How many values each rule replaces, by its id."""
        counted: dict[str, int] = {}
        for _, found in self.found:
            for hit in merged([hit for hit in found if rules[hit.rule].fits(tool)]):
                counted[rules[hit.rule].id] = counted.get(rules[hit.rule].id, 0) + 1
        return counted


def scan(result: ResultAt, redaction: Redaction) -> Scanned:
    """Looks at one result. Raises `TooManyValues`."""
    found: list[tuple[Slice, tuple[Hit, ...]]] = []
    values: list[dict[bytes, Kept]] = [{} for _ in redaction.fields]
    for slice_ in result.slices:
        if of_rules := hits(redaction.results, slice_.text, redaction.key):
            found.append((slice_, tuple(of_rules)))
        for rule, into in zip(redaction.fields, values, strict=True):
            _collect(rule, slice_.text, redaction.key, into)
            if len(into) > MOST_VALUES:
                raise TooManyValues(result.id)
    return Scanned(
        result.id, result.size, result.digest, tuple(found), tuple(tuple(each.values()) for each in values)
    )


def _collect(rule: Rule, text: str, key: bytes, into: dict[bytes, Kept]) -> None:
    for start, end in values_at(text, rule.field):
        for spelling in _spellings(text[start:end]):
            for piece in kept(spelling, key):
                into[piece.hash] = piece
        if len(into) > MOST_VALUES:
            return


def _spellings(literal: str) -> list[str]:
    """How a value may be written: every value in an object counts by itself, a number in several ways."""
    if literal.startswith('"'):
        return [string_of(literal)]
    if literal in ("true", "false", "null"):
        return []
    return [literal, *number_spellings(literal)]
