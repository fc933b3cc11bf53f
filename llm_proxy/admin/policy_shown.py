"""The policy in force, as operators see it: what it holds, and what each of its rules did lately."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.shown import maybe_iso
from llm_proxy.archive.rule_hits import RuleHits, rule_hits
from llm_proxy.policy import names
from llm_proxy.policy.compiled import Policy
from llm_proxy.records.rule_hits import HOUR_US
from llm_proxy.records.times import iso
from llm_proxy.spend.question import BadQuestion, moment

DAYS_BY_HOUR = 3
"""So much time is shown by the hour; more by the day."""


class RuleLine(RuleHits, frozen=True, kw_only=True):
    own: bool
    """It's one of `rules` or `sequence` of the file; otherwise it's built in, or of an earlier file."""
    last_at: str | None


class PolicyShown(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force in the process that answers. Times are Unix microseconds beside ISO 8601."""

    id: str
    version: str
    sha256: str
    mode: str
    owner: str
    on_deny: str
    file: str
    loaded_us: int | None
    """When it came into force; null where no running process was asked."""
    loaded_at: str | None
    problem: str
    """What is wrong with the file as it is now, empty where it's the policy in force."""
    tools: int
    tiers: dict[str, int]
    rule_count: int
    sequence_count: int
    cases: int
    since_us: int
    since_at: str
    until_us: int
    judged: int
    """Tool calls with a verdict in the hours of that time, under whatever policy."""
    span_us: int
    """Of `over_time`."""
    rules: tuple[RuleLine, ...]
    never_hit: tuple[str, ...]
    """Ids of `rules` and `sequence` that nothing hit in that time."""


class Loaded(msgspec.Struct, frozen=True):
    """How the policy came into force, where a running process tells."""

    at_us: int | None = None
    problem: str = ""


def policy_shown(
    connection: Connection | None,
    policy: Policy,
    file: str,
    since: str,
    now_us: int,
    loaded: Loaded = Loaded(),  # noqa: B008 (frozen)
) -> PolicyShown:
    """Raises `Unclear` for a time that is none, or too long ago to be shown."""
    try:
        since_us = moment(since, now_us)
    except BadQuestion as error:
        raise Unclear(str(error)) from None
    span_us = HOUR_US if now_us - since_us <= DAYS_BY_HOUR * 24 * HOUR_US else 24 * HOUR_US
    rules: tuple[RuleHits, ...] = ()
    judged = 0
    if connection is not None:
        try:
            hits = rule_hits(connection, since_us, now_us, span_us)
        except ValueError as error:
            raise Unclear(f"Since {since!r}, {error}: name a later time.") from None
        rules, judged = hits.rules, hits.judged
    own = names.own_rules(policy.file)
    hit = {rule.rule for rule in rules}
    header, tiers = policy.file.policy, [str(tool.tier or "none") for tool in policy.file.tools.values()]
    return PolicyShown(
        id=header.id,
        version=str(header.version),
        sha256=policy.sha256,
        mode=header.mode.value,
        owner=header.owner,
        on_deny=policy.file.on_deny.value,
        file=file,
        loaded_us=loaded.at_us,
        loaded_at=maybe_iso(loaded.at_us),
        problem=loaded.problem,
        tools=len(policy.tools),
        tiers={tier: tiers.count(tier) for tier in sorted(set(tiers))},
        rule_count=len(policy.rules),
        sequence_count=len(policy.file.sequence),
        cases=len(policy.file.tests),
        since_us=since_us,
        since_at=iso(since_us),
        until_us=now_us,
        judged=judged,
        span_us=span_us,
        rules=tuple(
            RuleLine(**msgspec.structs.asdict(rule), own=rule.rule in own, last_at=iso(rule.last_us))
            for rule in rules
        ),
        never_hit=tuple(rule for rule in own if rule not in hit),
    )
