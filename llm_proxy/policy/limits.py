"""Sequences, caps and sums: what the run so far, and the rest of the reply, say about a call.

Siblings (the other calls of the same reply) count whatever their own verdicts are: a ban counts all of them,
a cap the ones before. So judging one call more strictly never frees another. Only completed calls of the
history meet a prerequisite; a sibling never does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from llm_proxy.policy import names
from llm_proxy.policy.actions import Action, Finding, fits, same
from llm_proxy.policy.canonical import Json
from llm_proxy.policy.context import Context, Done, RunFacts
from llm_proxy.policy.globs import matches
from llm_proxy.policy.schema import Ban, Caps, Decision, Freeze, Prerequisite, Sum


def frozen(freeze: Freeze | None, run: RunFacts) -> Iterator[Finding]:
    if freeze is None:
        return
    denied = max(run.denials, sum(done.decision is Decision.DENY for done in run.history))
    if denied >= freeze.on.denials_per_run:
        why = f"{denied} calls of this run were denied; {freeze.on.denials_per_run} freeze it"
        yield Finding(freeze.then, names.FROZEN, why, "Too many calls were denied: this run may call no tool")


def sequence_findings(
    steps: Sequence[Ban | Prerequisite], action: Action, siblings: Sequence[Action], context: Context
) -> Iterator[Finding]:
    """The bans that hit and the prerequisites that are not met."""
    for step in steps:
        if isinstance(step, Ban):
            if action.fits(step.forbid) and _happened(step, siblings, context.run):
                yield _of(step, step.then, "It may not follow what this run already did")
        elif action.fits(step.before) and not _met(step, context):
            yield _of(step, step.otherwise, "Something else must be completed before it")


def _of(step: Ban | Prerequisite, decision: Decision, default: str) -> Finding:
    return Finding(decision, step.id, step.why or default, step.tell_model or default)


def _happened(ban: Ban, siblings: Sequence[Action], run: RunFacts) -> bool:
    if any(sibling.fits(ban.after) for sibling in siblings):
        return True
    return any(_released(done) and fits(ban.after, done.tool, done.effect) for done in run.history)


def _released(done: Done) -> bool:
    """Shadow mode releases denied calls too; a result shows that one ran."""
    return done.decision is Decision.ALLOW or done.completed


def _met(step: Prerequisite, context: Context) -> bool:
    need, run = step.require, context.run
    if need.event is not None:
        at = run.events.get(need.event)
        return at is not None and _recent(at, need.within_s, context.now_s)
    return any(
        done.completed
        and fits(need, done.tool, done.effect)
        and _recent(done.at_s, need.within_s, context.now_s)
        for done in run.history
    )


def _recent(at_s: float, within_s: float | None, now_s: float) -> bool:
    return within_s is None or now_s - at_s <= within_s


def repeated(action: Action, earlier: Sequence[Action], run: RunFacts) -> int:
    """How often exactly this action was allowed in the run, or proposed earlier in the reply."""
    before = sum(done.decision is Decision.ALLOW and done.digest == action.digest for done in run.history)
    return before + same(earlier, action.digest)


def cap_findings(
    caps: Caps, action: Action, earlier: Sequence[Action], context: Context
) -> Iterator[Finding]:
    """The caps that this call would pass, `earlier` siblings counted as done."""
    writes = sum(sibling.is_write for sibling in earlier)
    irreversible = sum(sibling.is_irreversible for sibling in earlier)
    run, day = context.run, context.day
    uses = [
        ("run", "calls", run.calls + len(earlier), caps.run.calls),
        ("day", "calls", day.calls + len(earlier), caps.day.calls),
    ]
    if action.is_write:
        uses.append(("run", "writes", run.writes + writes, caps.run.writes))
        uses.append(("day", "writes", day.writes + writes, caps.day.writes))
    if action.is_irreversible:
        uses.append(("run", "irreversible", run.irreversible + irreversible, caps.run.irreversible))
    if caps.run.identical_calls is not None:
        uses.append(("run", "identical_calls", repeated(action, earlier, run), caps.run.identical_calls))
    for window, unit, used, most in uses:
        if most is not None and used >= most:
            words = unit.replace("_", " ")
            yield Finding(
                Decision.DENY,
                names.cap(window, unit),
                f"{used} of {most} {words} per {window} are used",
                f"The limit of {most} {words} per {window} is reached",
            )
    for entry in caps.sums:
        if matches(entry.tool, action.tool.name):
            yield from _sum_findings(entry, action, earlier, context)


def _sum_findings(
    entry: Sum, action: Action, earlier: Sequence[Action], context: Context
) -> Iterator[Finding]:
    amount = _amount(action.arguments, entry.field)
    if amount is None:
        why = f"{entry.field} is not a number of 0 or more, so it can't be summed"
        yield Finding(Decision.DENY, names.sum_(entry.id), why, why)
        return
    siblings = (_amount(a.arguments, entry.field) for a in earlier if matches(entry.tool, a.tool.name))
    used = Decimal(repr(context.sums.get(entry.id, 0.0))) + sum(part for part in siblings if part is not None)
    most = Decimal(repr(entry.max))
    if used + amount > most:
        why = f"{entry.field} would pass {most.normalize():f} per {entry.per}"
        yield Finding(entry.then, names.sum_(entry.id), why, f"The sum of {why}")


def _amount(arguments: dict[str, Json], field: str) -> Decimal | None:
    """The number at a dotted path. A negative one has no amount: it would make room in the sum."""
    value: Json = arguments
    for key in field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        return None
    return Decimal(repr(value))
