"""Judging recorded calls again by one policy, in the order in which they were judged."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from decimal import Decimal

from llm_proxy.policy.context import Context, DayFacts, RunFacts
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.limits import DAY_CALLS, DAY_WRITES
from llm_proxy.policy.past import Came, Event, Judged, Past, RunId, proposed
from llm_proxy.policy.replay import RunReplay
from llm_proxy.policy.tallies import MILLION, CapTallies
from llm_proxy.policy.verdict import Verdict
from llm_proxy.records.judged import Judged as Facts

_SUM = "sum:"
MOST_HELD = 200_000
"""Runs and their calls that are remembered at once; a run that was forgotten is read again."""


class Again:
    """Judges by one policy. Events come in order; a run's own past is read when it's first met.

    Runs go as they were recorded to go. Caps by day and sums count what this policy would have let by of what
    was done: what it would deny doesn't use them up.
    """

    def __init__(self, engine: PolicyEngine, past: Past, most_held: int = MOST_HELD) -> None:
        self._engine = engine
        self._past = past
        self._most_held = most_held
        self._held = 0
        self._runs: OrderedDict[RunId, RunReplay] = OrderedDict()
        self._caps = CapTallies(engine)

    def came(self, event: Came) -> None:
        self._run(event).add(event)

    def unread(self, event: Judged) -> None:
        """Calls whose arguments are not kept any more: the run goes on as it was recorded to go."""
        self._run(event).add(event)
        self._held += len(event.decisions)

    def judge(self, event: Judged) -> tuple[Verdict, ...]:
        """This policy's verdicts on the calls of `event`; an ask stays an ask."""
        context = self.context(event)
        verdicts = self._engine.decide(list(map(proposed, event.decisions)), context)
        self._caps.add(event, verdicts)
        self._run(event).judged(event, verdicts)
        self._held += len(verdicts)
        return verdicts

    def context(self, event: Judged) -> Context:
        """What the verdicts on `event` rest on."""
        run = self._run(event).facts()
        day, sums = self._caps.used(event)
        if event.facts is not None:
            run = _beyond_any_policy(run, event.facts)
            if event.policy == self._engine.policy.sha256:
                run, (day, sums) = _as_judged(run, event.facts), _counters(event.facts)
        return Context(
            agent=event.agent,
            user=event.user,
            run=run,
            now_s=event.now_s,
            day=day,
            sums=sums,
            user_text=lambda: self._past.user_text(event),
            env=event.env,
        )

    def _run(self, event: Event) -> RunReplay:
        found = self._runs.get(event.run)
        if found is not None:
            self._runs.move_to_end(event.run)
            return found
        made = RunReplay(self._engine, self._past.start(event.run))
        for earlier in self._past.before(event):
            made.add(earlier)
            if isinstance(earlier, Judged):
                self._caps.recall(earlier)
        self._forget()
        self._runs[event.run] = made
        self._held += made.size
        return made

    def _forget(self) -> None:
        """Makes room for a run, those first that nothing happened to for the longest time."""
        while self._runs and self._held >= self._most_held:
            run, forgotten = self._runs.popitem(last=False)
            self._held -= forgotten.size
            self._caps.forget(run)


def _beyond_any_policy(run: RunFacts, facts: Facts) -> RunFacts:
    """With what was recorded and would be so under every policy."""
    return replace(
        run,
        labels=frozenset(facts.labels),
        started_s=facts.started_us / 1e6,
        role_at_start=facts.role_at_start,
        depth=facts.depth,
        events={name: at_us / 1e6 for name, at_us in facts.events.items()},
    )


def _as_judged(run: RunFacts, facts: Facts) -> RunFacts:
    """With what was recorded under this very policy."""
    return replace(
        run,
        sensitivity=facts.sensitivity,
        untrusted=facts.untrusted,
        calls=facts.calls,
        writes=facts.writes,
        irreversible=facts.irreversible,
        denials=facts.denials,
    )


def _counters(facts: Facts) -> tuple[DayFacts, dict[str, Decimal]]:
    used = facts.counters
    sums = {cap.removeprefix(_SUM): Decimal(n) / MILLION for cap, n in used.items() if cap.startswith(_SUM)}
    return DayFacts(used.get(DAY_CALLS, 0), used.get(DAY_WRITES, 0)), sums
