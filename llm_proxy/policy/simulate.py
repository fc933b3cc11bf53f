"""What another policy would have said: the record compared with it, or two policies with each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from llm_proxy.policy import names
from llm_proxy.policy.again import Again
from llm_proxy.policy.past import Came, Event, Judged, RunId, Word, word
from llm_proxy.policy.schema import PolicyFile
from llm_proxy.policy.verdict import Verdict
from llm_proxy.records.view import Decision as Recorded


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A call of which the two sides say different things. Time in Unix microseconds."""

    at_us: int
    agent_id: str
    run_id: str
    call_id: str
    tool_call_id: str
    tool: str
    was: str
    """allow, ask or deny: the policy's own word, whatever became of an ask."""
    was_rule: str
    now: str
    now_rule: str
    now_why: str
    """Quotes no argument."""


class Moved(msgspec.Struct, frozen=True):
    """How many calls went from one decision to another, or stayed."""

    was: str
    now: str
    count: int


class RuleCount(msgspec.Struct, frozen=True):
    """How often a rule of the new side decided, and how often it was among the others that hit."""

    rule: str
    decided: int
    also: int


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was compared; `changes` are the first of those that changed."""

    judged: int
    runs: int
    outside: int
    """Of the calls, those that something else denied: a budget, an envelope, the agent's own list of tools.
    They stay denied."""
    unread: int
    """Calls that could not be judged again, since their arguments are not kept; not among those `judged`."""
    changed: int
    rule_changed: int
    """Same decision, another rule."""
    moved: tuple[Moved, ...]
    rules: tuple[RuleCount, ...]
    never_hit: tuple[str, ...]
    """Ids of `rules` and `sequence` of the new side that hit nothing."""
    changes: tuple[Change, ...]


class Comparison:
    """Counts as events pass. Memory: a run's name each, and `most` changes."""

    def __init__(self, file: PolicyFile, most: int) -> None:
        """`file` is the new side's."""
        self._file = file
        self._most = most
        self.judged = self._outside = self._unread = self._changed = self._rule_changed = 0
        self._moved: Counter[tuple[str, str]] = Counter()
        self._decided: Counter[str] = Counter()
        self._also: Counter[str] = Counter()
        self._runs: set[RunId] = set()
        self._changes: list[Change] = []

    def add(self, event: Judged, was: Sequence[Word], now: Sequence[Verdict]) -> None:
        self._runs.add(event.run)
        for recorded, before, verdict in zip(event.decisions, was, now, strict=True):
            self.judged += 1
            self._outside += before.outside
            after = before if before.outside else Word(verdict.decision, verdict.rule)
            self._moved[before.decision.value, after.decision.value] += 1
            if not before.outside:
                self._decided[verdict.rule] += 1
                self._also.update(verdict.hits)
            if before.decision is not after.decision:
                self._changed += 1
                if len(self._changes) < self._most:
                    self._changes.append(_change(event, recorded, before, verdict))
            elif before.rule != after.rule:
                self._rule_changed += 1

    def unread(self, event: Judged) -> None:
        """Calls that can't be judged again."""
        self._unread += len(event.decisions)

    def result(self) -> Compared:
        rules = sorted({*self._decided, *self._also}, key=lambda rule: (-self._decided[rule], rule))
        return Compared(
            judged=self.judged,
            runs=len(self._runs),
            outside=self._outside,
            unread=self._unread,
            changed=self._changed,
            rule_changed=self._rule_changed,
            moved=tuple(Moved(was, now, count) for (was, now), count in self._moved.most_common()),
            rules=tuple(RuleCount(rule, self._decided[rule], self._also[rule]) for rule in rules),
            never_hit=tuple(rule for rule in names.own_rules(self._file) if rule not in set(rules)),
            changes=tuple(self._changes),
        )


def simulated(events: Iterable[Event], new: Again, into: Comparison, since_us: int = 0) -> Iterator[Event]:
    """Compares what is on record with `new`, and gives each event back once that's done.

    Events before `since_us` only bring counters to where they stood.
    """
    for event in events:
        if isinstance(event, Came):
            new.came(event)
        elif not event.kept:
            new.unread(event)
            if event.at_us >= since_us:
                into.unread(event)
        else:
            verdicts = new.judge(event)
            if event.at_us >= since_us:
                into.add(event, list(map(word, event.decisions)), verdicts)
        yield event


def differing(
    events: Iterable[Event], old: Again, new: Again, into: Comparison, since_us: int = 0
) -> Iterator[Event]:
    """The same of two policies, each over the record."""
    for event in events:
        if isinstance(event, Came):
            old.came(event)
            new.came(event)
        elif not event.kept:
            old.unread(event)
            new.unread(event)
            if event.at_us >= since_us:
                into.unread(event)
        else:
            before, after = old.judge(event), new.judge(event)
            if event.at_us >= since_us:
                into.add(event, [_of(r, v) for r, v in zip(event.decisions, before, strict=True)], after)
        yield event


def _of(recorded: Recorded, verdict: Verdict) -> Word:
    found = word(recorded)
    return found if found.outside else Word(verdict.decision, verdict.rule)


def _change(event: Judged, recorded: Recorded, was: Word, verdict: Verdict) -> Change:
    return Change(
        at_us=event.at_us,
        agent_id=event.run.agent_id,
        run_id=event.run.run_id,
        call_id=event.call_id,
        tool_call_id=recorded.tool_call_id,
        tool=recorded.tool,
        was=was.decision.value,
        was_rule=was.rule,
        now=verdict.decision.value,
        now_rule=verdict.rule,
        now_why=verdict.why,
    )
