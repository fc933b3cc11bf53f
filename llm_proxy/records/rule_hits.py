"""How often each rule of the policy spoke, by the hour: counted with the verdicts, in their transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from llm_proxy.records.columns import column
from llm_proxy.records.view import Decision

HOUR_US = 3_600_000_000
ALSO = "also"


class RuleHitRow(NamedTuple):
    """One rule in one hour (since 1970, UTC); the columns are those of `policy_tables.rule_hits`."""

    hour: int
    rule: str
    said: str
    """What it decided; `also` where it spoke and another rule decided."""
    hits: int
    last_us: int


def rule_hit_rows(decisions: Sequence[Decision], at_us: int) -> tuple[RuleHitRow, ...]:
    """A row for each rule that spoke on each of the tool calls. A call on which none did counts for `""`."""
    hour = at_us // HOUR_US
    return tuple(
        RuleHitRow(hour, column(rule), one.decision if n == 0 else ALSO, 1, at_us)
        for one in decisions
        for n, rule in enumerate(dict.fromkeys((one.rule, *one.hits)))
    )


def added_hits(rows: Iterable[RuleHitRow]) -> list[RuleHitRow]:
    """One row per hour, rule and what it said, in their order."""
    found: dict[tuple[int, str, str], RuleHitRow] = {}
    for row in rows:
        if (before := found.get(row[:3])) is not None:
            row = row._replace(hits=before.hits + row.hits, last_us=max(before.last_us, row.last_us))  # noqa: PLW2901
        found[row[:3]] = row
    return [found[key] for key in sorted(found)]
