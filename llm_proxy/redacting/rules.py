"""The `redact` rules of one policy, ready to use: what they find in a text, and the text with it replaced."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llm_proxy.policy.globs import matches
from llm_proxy.policy.schema import PolicyFile
from llm_proxy.policy.vocabulary import Detector, Replacement
from llm_proxy.redacting.detected import Literal, detected, literals
from llm_proxy.redacting.fields import Path, string_of, values_at
from llm_proxy.redacting.shown import key_of, shown


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `redact`. Exactly one of `field` and `detect` is given."""

    id: str
    tool: str
    field: Path
    detect: Detector | None
    how: Replacement
    rank: int | None
    """In replies: the clearance from which on it may be read; None where nobody may."""

    def fits(self, tool: str | None) -> bool:
        """Whether it speaks for the results of `tool`; of a tool that nobody knows (None) all rules do."""
        return tool is None or matches(self.tool, tool)


class Hit(NamedTuple):
    """A value in a text: where, by which rule (its place among those asked), and what stands for it."""

    start: int
    end: int
    rule: int
    text: str


@dataclass(frozen=True, slots=True)
class Redaction:
    """The rules by the places that they are for. `key` is that of tokens and of kept values."""

    key: bytes
    results: tuple[Rule, ...] = ()
    args: tuple[Rule, ...] = ()
    records: tuple[Rule, ...] = ()
    fields: tuple[Rule, ...] = ()
    """Of replies, by field: their values are remembered where results bring them."""
    detectors: tuple[Rule, ...] = ()
    """Of replies, by what a value looks like."""
    labels: tuple[str, ...] = ()

    @property
    def every(self) -> tuple[Rule, ...]:
        """Those for results, replies and records, each once."""
        places = (self.results, self.records, self.fields, self.detectors)
        return tuple({rule.id: rule for place in places for rule in place}.values())


def redaction_of(file: PolicyFile, secret: bytes) -> Redaction:
    """The rules of a policy; `secret` is the store's, from which the policy's own key is made."""

    def rules(place: str) -> tuple[Rule, ...]:
        return tuple(
            Rule(
                entry.id,
                entry.tool,
                tuple(entry.field.split(".")[1:]) if entry.field else (),
                entry.detect,
                entry.replacement,
                None if entry.sensitivity is None else file.rank(entry.sensitivity),
            )
            for entry in file.redact
            if place in entry.places
        )

    replies = rules("reply")
    return Redaction(
        key_of(secret, file.policy.id),
        rules("tool_result"),
        rules("tool_args"),
        rules("record"),
        tuple(rule for rule in replies if rule.field),
        tuple(rule for rule in replies if rule.detect),
        file.labels.sensitivity,
    )


def hits(rules: Sequence[Rule], text: str, key: bytes) -> list[Hit]:
    """What each rule finds in `text`, rule by rule."""
    strings = literals(text) if any(rule.detect for rule in rules) else ()
    return [hit for n, rule in enumerate(rules) for hit in _hits(n, rule, text, strings, key)]


def merged(found: Iterable[Hit]) -> list[Hit]:
    """Hits without overlaps, in order: what overlaps is one hit, shown as the widest of it."""
    out: list[Hit] = []
    for hit in sorted(found):
        if out and hit.start < out[-1].end:
            last = out[-1]
            wider = min(last, hit, key=lambda each: (each.start - each.end, each.rule))
            out[-1] = Hit(last.start, max(last.end, hit.end), wider.rule, wider.text)
        else:
            out.append(hit)
    return out


def replaced(text: str, found: Sequence[Hit]) -> str:
    """`text` with each of the hits, which are in order and apart, replaced."""
    pieces: list[str] = []
    at = 0
    for hit in found:
        pieces += (text[at : hit.start], hit.text)
        at = hit.end
    return "".join([*pieces, text[at:]])


def redacted(rules: Sequence[Rule], text: str, key: bytes) -> tuple[str, list[Hit]]:
    """`text` as the rules leave it, and what was replaced in it."""
    found = merged(hits(rules, text, key))
    return (replaced(text, found), found) if found else (text, found)


def _hits(n: int, rule: Rule, text: str, strings: tuple[Literal, ...], key: bytes) -> Iterator[Hit]:
    if rule.detect is None:
        for start, end in values_at(text, rule.field):
            yield _of_field(n, rule, text, start, end, key)
        return
    kind, how = rule.detect, rule.how
    for start, end, said in detected(kind, text, strings, lambda value: shown(how, value, kind, key)):
        yield Hit(start, end, n, said)


def _of_field(n: int, rule: Rule, text: str, start: int, end: int, key: bytes) -> Hit:
    literal = text[start:end]
    if rule.how == "remove":
        return Hit(start, end, n, "null")
    value = string_of(literal) if literal.startswith('"') else literal
    return Hit(start, end, n, json.dumps(shown(rule.how, value, None, key), ensure_ascii=False))
