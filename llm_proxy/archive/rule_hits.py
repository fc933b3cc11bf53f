"""How often each rule of a policy spoke, over time: from the verdicts on record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Connection

from llm_proxy.archive.judged import Wanted, pages
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.prepared import select_in

MOST_CALLS = 200_000
"""Calls that are looked at, the oldest first."""
_MOST_SPANS = 1_000


class Span(msgspec.Struct, frozen=True):
    """From `from_us` on, for the width that was asked for."""

    from_us: int
    hits: int


class RuleHits(msgspec.Struct, frozen=True, kw_only=True):
    """One rule: calls that it decided, and calls on which it only spoke too. Times are Unix microseconds."""

    rule: str
    allowed: int
    asked: int
    denied: int
    also: int
    """Hits beside the rule that decided. An ask that was answered counts here for the rule that asked."""
    last_us: int
    over_time: tuple[Span, ...]
    """Spans without a hit are left out."""


class Hits(msgspec.Struct, frozen=True, kw_only=True):
    """`complete` is false where there were more calls than are looked at."""

    rules: tuple[RuleHits, ...]
    judged: int
    complete: bool


class _Decision(msgspec.Struct, frozen=True):
    decision: str
    rule: str = ""
    hits: tuple[str, ...] = ()


class _Verdicts(msgspec.Struct, frozen=True):
    decisions: tuple[_Decision, ...]


_verdicts = msgspec.json.Decoder(_Verdicts).decode


@dataclass(slots=True)
class _Rule:
    decided: Counter[str] = field(default_factory=Counter[str])
    also: int = 0
    last_us: int = 0
    spans: Counter[int] = field(default_factory=Counter[int])


def rule_hits(connection: Connection, wanted: Wanted, width_us: int, most_calls: int = MOST_CALLS) -> Hits:
    """What each rule did to calls that are `wanted`, those that spoke most first; spans are `width_us` long.

    Raises ValueError where the time asked for has more spans than can be shown.
    """
    if wanted.since_us is not None and wanted.until_us is not None:
        spans = (wanted.until_us - wanted.since_us) // width_us
        if spans > _MOST_SPANS:
            raise ValueError(f"that are {spans} spans of time; at most {_MOST_SPANS} can be shown")
    found: dict[str, _Rule] = {}
    judged = read = 0
    for ids, _ in pages(connection, wanted):
        if read + len(ids) > most_calls:
            return Hits(rules=_shown(found, width_us), judged=judged, complete=False)
        read += len(ids)
        for at_us, decision in _decisions(connection, ids):
            judged += 1
            for n, rule in enumerate(dict.fromkeys((decision.rule, *decision.hits))):
                _count(found.setdefault(rule, _Rule()), decision, at_us, width_us, decided=n == 0)
    found.pop("", None)
    return Hits(rules=_shown(found, width_us), judged=judged, complete=True)


def _decisions(connection: Connection, ids: list[str]) -> Iterator[tuple[int, _Decision]]:
    for kind, at_us, body in select_in(connection, "kind, at_us, body", "records", "call_id", ids):
        if kind == RecordKind.VERDICTS:
            for decision in _verdicts(bytes(body)).decisions:
                yield at_us, decision


def _count(rule: _Rule, decision: _Decision, at_us: int, width_us: int, *, decided: bool) -> None:
    if decided:
        rule.decided[decision.decision] += 1
    else:
        rule.also += 1
    rule.last_us = max(rule.last_us, at_us)
    rule.spans[at_us // width_us] += 1


def _shown(found: dict[str, _Rule], width_us: int) -> tuple[RuleHits, ...]:
    ordered = sorted(found.items(), key=lambda item: (-item[1].spans.total(), item[0]))
    return tuple(
        RuleHits(
            rule=name,
            allowed=rule.decided["allow"],
            asked=rule.decided["ask"],
            denied=rule.decided["deny"],
            also=rule.also,
            last_us=rule.last_us,
            over_time=tuple(Span(at * width_us, hits) for at, hits in sorted(rule.spans.items())),
        )
        for name, rule in ordered
    )
