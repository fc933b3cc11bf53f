"""What caps by day and sums have used, as recorded calls are judged again in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from llm_proxy.policy.context import DayFacts
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.limits import DAY_CALLS, DAY_WRITES, Use
from llm_proxy.policy.names import sum_
from llm_proxy.policy.past import Judged, RunId, proposed, word
from llm_proxy.policy.verdict import Verdict
from llm_proxy.policy.vocabulary import Decision, Mode, Per
from llm_proxy.records.view import Decision as Recorded

_DAY_US = 86_400_000_000
MILLION = 1_000_000


class _Counter(NamedTuple):
    cap: str
    subject: str


class CapTallies:
    """Of one policy. Days are UTC's; only the present one is remembered, and the runs that are."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine
        self._caps = engine.policy.file.caps
        self._enforces = engine.policy.file.policy.mode is Mode.ENFORCE
        self._day = -1
        self._used: Counter[_Counter] = Counter()
        self._by_run: dict[RunId, Counter[str]] = {}

    def used(self, event: Judged) -> tuple[DayFacts, dict[str, Decimal]]:
        """Before `event`."""
        if not self._caps.counted:
            return DayFacts(), {}
        self._turn(event)
        agent = event.run.agent_id
        day = DayFacts(self._used[_Counter(DAY_CALLS, agent)], self._used[_Counter(DAY_WRITES, agent)])
        sums = {entry.id: self._of(sum_(entry.id), entry.per, event) for entry in self._caps.sums}
        return day, {id_: Decimal(used) / MILLION for id_, used in sums.items()}

    def add(self, event: Judged, verdicts: Sequence[Verdict]) -> None:
        """Counts what this policy lets by."""
        if not self._caps.counted:
            return
        self._turn(event)
        uses = self._engine.uses(list(map(proposed, event.decisions)))
        for recorded, verdict, each in zip(event.decisions, verdicts, uses, strict=True):
            if self._passes(recorded, verdict):
                for use in each:
                    self._count(use, event)

    def recall(self, event: Judged) -> None:
        """Counts, over its run alone, what was released before this policy was asked of anything."""
        if not any(entry.per is Per.RUN for entry in self._caps.sums):
            return
        uses = self._engine.uses(list(map(proposed, event.decisions)))
        for recorded, each in zip(event.decisions, uses, strict=True):
            for use in each:
                if recorded.released and use.per is Per.RUN:
                    self._count(use, event)

    def forget(self, run: RunId) -> None:
        self._by_run.pop(run, None)

    def _passes(self, recorded: Recorded, verdict: Verdict) -> bool:
        if verdict.decision is Decision.ASK:
            return recorded.released
        return not word(recorded).outside and (verdict.decision is Decision.ALLOW or not self._enforces)

    def _count(self, use: Use, event: Judged) -> None:
        if use.per is Per.RUN:
            self._by_run.setdefault(event.run, Counter())[use.cap] += use.amount
        else:
            self._used[_Counter(use.cap, _subject(use.per, event))] += use.amount

    def _of(self, cap: str, per: Per, event: Judged) -> int:
        if per is Per.RUN:
            return self._by_run.get(event.run, Counter[str]())[cap]
        return self._used[_Counter(cap, _subject(per, event))]

    def _turn(self, event: Judged) -> None:
        day = event.at_us // _DAY_US
        if day != self._day:
            self._day = day
            self._used.clear()


def _subject(per: Per, event: Judged) -> str:
    return event.run.agent_id if per is Per.AGENT_DAY else event.user.id
