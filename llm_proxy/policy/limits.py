"""Sequences, caps and sums: what the run so far, and the rest of the reply, say about a call.

Siblings (the other calls of the same reply) count whatever their own verdicts are: a ban counts all of them,
a cap the ones before. So judging one call more strictly never frees another. Only completed calls of the
history meet a prerequisite; a sibling never does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from itertools import chain

from llm_proxy.policy import names
from llm_proxy.policy.actions import Action, Finding, fits, same
from llm_proxy.policy.canonical import Json
from llm_proxy.policy.context import Context, Done, RunFacts
from llm_proxy.policy.globs import matches
from llm_proxy.policy.schema import Ban, Caps, Decision, Freeze, Prerequisite, Sum
from llm_proxy.policy.vocabulary import Per

DAY_CALLS, DAY_WRITES = "day.calls", "day.writes"
MOST = 9_000_000_000_000
"""The largest amount of a sum: its millionths fit 64 bits."""
_MILLIONTH = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Use:
    """What a released call adds to one counter. `amount` is in millionths for a sum."""

    cap: str
    """`day.calls`, `day.writes`, or `sum:` and the sum's id."""
    per: Per
    amount: int


def uses(caps: Caps, action: Action) -> tuple[Use, ...]:
    """The counters beyond the run's own history that a call adds to; none for one that can't be read."""
    if action.refused:
        return ()
    found: list[Use] = []
    if caps.day.calls is not None:
        found.append(Use(DAY_CALLS, Per.AGENT_DAY, 1))
    if caps.day.writes is not None and action.is_write:
        found.append(Use(DAY_WRITES, Per.AGENT_DAY, 1))
    for entry in caps.sums:
        part = amount(action.arguments, entry.field) if matches(entry.tool, action.tool.name) else None
        if part is not None:
            found.append(Use(names.sum_(entry.id), entry.per, int(part / _MILLIONTH)))
    return tuple(found)


def bites(caps: Caps, replies: Sequence[Sequence[Use]], used: Mapping[str, int]) -> bool:
    """Whether any of a reply's calls would pass a cap by day or a sum, all before it counted as done."""
    most = {DAY_CALLS: caps.day.calls, DAY_WRITES: caps.day.writes}
    sums = {names.sum_(entry.id): int(Decimal(str(entry.max)) / _MILLIONTH) for entry in caps.sums}
    total = dict(used)
    for one in chain.from_iterable(replies):
        total[one.cap] = total.get(one.cap, 0) + one.amount
        limit = sums.get(one.cap, most.get(one.cap))
        if limit is not None and total[one.cap] > limit:
            return True
    return False


def frozen(freeze: Freeze | None, run: RunFacts) -> Iterator[Finding]:
    """What a freeze of the run alone says. A frozen agent doesn't come as far as this."""
    if freeze is None or freeze.scope != "run":
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
    asked = amount(action.arguments, entry.field)
    if asked is None:
        why = f"{entry.field} is not a number of 0 or more, so it can't be summed"
        yield Finding(Decision.DENY, names.sum_(entry.id), why, why)
        return
    siblings = (amount(a.arguments, entry.field) for a in earlier if matches(entry.tool, a.tool.name))
    used = Decimal(str(context.sums.get(entry.id, 0))) + sum(part for part in siblings if part is not None)
    most = Decimal(str(entry.max))
    if used + asked > most:
        why = f"{entry.field} would pass {most.normalize():f} per {entry.per}"
        yield Finding(entry.then, names.sum_(entry.id), why, f"The sum of {why}")


def amount(arguments: dict[str, Json], field: str) -> Decimal | None:
    """The number at a dotted path, in whole millionths, rounded up. A negative one has no amount: it would
    make room in the sum. Nor has one that no counter can hold.
    """
    value: Json = arguments
    for key in field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST:
        return None
    return Decimal(repr(value)).quantize(_MILLIONTH, ROUND_CEILING)
