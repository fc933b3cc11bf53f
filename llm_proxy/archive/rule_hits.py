"""How often each rule of a policy spoke, over time: from the sums that are kept with the verdicts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Connection, func, select

from llm_proxy.records.policy_tables import rule_hits as hits
from llm_proxy.records.rule_hits import ALSO, HOUR_US

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
    rules: tuple[RuleHits, ...]
    judged: int


@dataclass(slots=True)
class _Rule:
    said: Counter[str] = field(default_factory=Counter[str])
    last_us: int = 0
    spans: Counter[int] = field(default_factory=Counter[int])


def rule_hits(connection: Connection, since_us: int, until_us: int, width_us: int) -> Hits:
    """What each rule did in the hours that this time touches, those that spoke most first; spans are
    `width_us` long, which is hours.

    Raises ValueError where the time asked for has more spans than can be shown.
    """
    spans = (until_us - since_us) // width_us
    if spans > _MOST_SPANS:
        raise ValueError(f"that are {spans} spans of time; at most {_MOST_SPANS} can be shown")
    span = hits.c.hour // (width_us // HOUR_US)
    query = select(
        hits.c.rule, hits.c.said, span.label("span"), func.sum(hits.c.hits), func.max(hits.c.last_us)
    ).where(hits.c.hour >= since_us // HOUR_US, hits.c.hour <= until_us // HOUR_US)
    found: dict[str, _Rule] = {}
    for name, said, at, number, last_us in connection.execute(query.group_by(hits.c.rule, hits.c.said, span)):
        rule = found.setdefault(name, _Rule())
        rule.said[said] += int(number)
        rule.spans[at] += int(number)
        rule.last_us = max(rule.last_us, last_us)
    judged = sum(rule.said.total() - rule.said[ALSO] for rule in found.values())
    found.pop("", None)
    return Hits(rules=_shown(found, width_us), judged=judged)


def _shown(found: dict[str, _Rule], width_us: int) -> tuple[RuleHits, ...]:
    ordered = sorted(found.items(), key=lambda item: (-item[1].spans.total(), item[0]))
    return tuple(
        RuleHits(
            rule=name,
            allowed=rule.said["allow"],
            asked=rule.said["ask"],
            denied=rule.said["deny"],
            also=rule.said[ALSO],
            last_us=rule.last_us,
            over_time=tuple(Span(at * width_us, number) for at, number in sorted(rule.spans.items())),
        )
        for name, rule in ordered
    )
