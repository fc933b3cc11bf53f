"""Why a recorded verdict is what it is: judged again on what it rested on, with every rule that spoke."""

from __future__ import annotations

import msgspec

from llm_proxy.policy import names
from llm_proxy.policy.again import Again
from llm_proxy.policy.context import Context, Done
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.past import BUDGET, Judged, Past
from llm_proxy.policy.permitted import Permitted
from llm_proxy.policy.schema import PolicyFile
from llm_proxy.policy.verdict import Verdict
from llm_proxy.policy.vocabulary import Decision
from llm_proxy.records.view import Decision as Recorded


class RuleText(msgspec.Struct, frozen=True):
    """A rule as the file has it: its condition, or its keys as JSON. Empty for built-in rules."""

    rule: str
    text: str
    why: str


class Before(msgspec.Struct, frozen=True):
    """An earlier tool call of the run, as it stood at the verdict. Time in Unix microseconds."""

    at_us: int
    tool: str
    effect: str
    decision: str
    completed: bool
    digest: str


class CallExplained(msgspec.Struct, frozen=True, kw_only=True):
    """One tool call: what is on record, and what judging it again says."""

    tool_call_id: str
    tool: str
    arguments: str
    digest: str
    """Of tool and arguments, as they are on record."""
    masked: bool
    """The arguments on record aren't those that were judged: a redaction of records replaced something."""
    released: bool
    """It reached the agent; otherwise it was stripped from the reply."""
    decision: str
    rule: str
    why: str
    tell_model: str
    hits: tuple[str, ...]
    shadow: bool
    again: str
    """What the policy says of it: allow, ask or deny."""
    again_rule: str
    again_why: str
    again_hits: tuple[str, ...]
    reproduced: bool
    """Judging again comes to what is on record, down to the other rules that hit."""
    rules: tuple[RuleText, ...]
    """Those that decided and hit, on record and again."""


class RunThen(msgspec.Struct, frozen=True, kw_only=True):
    """The run as the verdicts saw it. Ranks are of the policy's labels, the lowest 0."""

    sensitivity: int
    label: str
    untrusted: bool
    labels: tuple[str, ...]
    calls: int
    writes: int
    irreversible: int
    denials: int
    started_us: int
    role_at_start: str
    depth: int
    events: dict[str, int]
    counters: dict[str, float]
    """What caps by day and sums had used before."""
    snapshot: bool
    """The figures are on record; otherwise they are put together from the run's other records."""
    history: tuple[Before, ...]


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """The verdicts on one reply."""

    at_us: int
    policy: str
    """SHA-256 of the policy that judged, empty where none did."""
    again: str
    """SHA-256 of the one that judged again."""
    same_policy: bool
    reproduced: bool
    run: RunThen
    calls: tuple[CallExplained, ...]


def explained(event: Judged, engine: PolicyEngine, past: Past) -> Explained:
    """Judges the reply's calls as a set, as they were."""
    again = Again(engine, past)
    context = again.context(event)
    verdicts = again.judge(event)
    policy = engine.policy
    calls = tuple(
        _call(recorded, verdict, event, policy.file)
        for recorded, verdict in zip(event.decisions, verdicts, strict=True)
    )
    return Explained(
        at_us=event.at_us,
        policy=event.policy,
        again=policy.sha256,
        same_policy=event.policy == policy.sha256,
        reproduced=all(call.reproduced for call in calls),
        run=_run(context, policy.file, snapshot=event.facts is not None),
        calls=calls,
    )


def _call(recorded: Recorded, verdict: Verdict, event: Judged, file: PolicyFile) -> CallExplained:
    rules = dict.fromkeys((recorded.rule, *recorded.hits, verdict.rule, *verdict.hits))
    return CallExplained(
        tool_call_id=recorded.tool_call_id,
        tool=recorded.tool,
        arguments=recorded.arguments,
        digest=verdict.digest,
        masked=bool(recorded.digest) and recorded.digest != verdict.digest,
        released=recorded.released,
        decision=recorded.decision,
        rule=recorded.rule,
        why=recorded.why,
        tell_model=recorded.tell_model,
        hits=recorded.hits,
        shadow=recorded.shadow,
        again=verdict.decision.value,
        again_rule=verdict.rule,
        again_why=verdict.why,
        again_hits=verdict.hits,
        reproduced=_reproduced(recorded, verdict, event),
        rules=tuple(text for rule in rules if (text := _text(rule, file)) is not None),
    )


def _reproduced(recorded: Recorded, verdict: Verdict, event: Judged) -> bool:
    """Whether the record is what the proxy makes of `verdict`: asks are answered, and others may deny too."""
    if recorded.rule == names.ENVELOPE:
        before = (verdict.rule, *verdict.hits) if verdict.decision is not Decision.ALLOW else ()
        return recorded.hits == tuple([rule for rule in before if rule != names.ENVELOPE])
    verdict = Permitted(event.agent.tools).judged(verdict, recorded.tool)
    rule, hits = recorded.rule, recorded.hits
    if (rule.startswith(BUDGET) or rule in (names.SIBLING_DENIED, names.REDACTED_ARGS)) and hits:
        rule, hits = hits[0], hits[1:]
        decision = Decision.ASK if rule in names.ANSWERS else verdict.decision
    else:
        decision = Decision.ASK if rule in names.ANSWERS else Decision(recorded.decision)
    if rule in names.ANSWERS:
        rule, hits = (hits[0], hits[1:]) if hits else (rule, hits)
    return (decision, rule, hits, recorded.effect) == (
        verdict.decision,
        verdict.rule,
        verdict.hits,
        verdict.effect.value,
    )


def _text(rule: str, file: PolicyFile) -> RuleText | None:
    if not rule:
        return None
    for entry in file.rules:
        if entry.id == rule:
            return RuleText(rule, entry.when, entry.why)
    for step in file.sequence:
        if step.id == rule:
            keys = step.model_dump(mode="json", exclude_none=True, exclude={"id", "why", "tell_model"})
            return RuleText(rule, msgspec.json.encode(keys).decode(), step.why)
    return RuleText(rule, "", "")


def _run(context: Context, file: PolicyFile, *, snapshot: bool) -> RunThen:
    run, labels = context.run, file.labels.sensitivity
    counters = {"day.calls": context.day.calls, "day.writes": context.day.writes}
    sums = {f"sum:{name}": float(used) for name, used in context.sums.items()}
    return RunThen(
        sensitivity=run.sensitivity,
        label=labels[run.sensitivity] if run.sensitivity < len(labels) else "",
        untrusted=run.untrusted,
        labels=tuple(sorted(run.labels)),
        calls=run.calls,
        writes=run.writes,
        irreversible=run.irreversible,
        denials=run.denials,
        started_us=round(run.started_s * 1e6),
        role_at_start=run.role_at_start,
        depth=run.depth,
        events={name: round(at_s * 1e6) for name, at_s in run.events.items()},
        counters={name: used for name, used in (counters | sums).items() if used},
        snapshot=snapshot,
        history=tuple(map(_before, run.history)),
    )


def _before(done: Done) -> Before:
    at_us = round(done.at_s * 1e6)
    return Before(at_us, done.tool, done.effect.value, done.decision.value, done.completed, done.digest)
