"""What the tool results of a request do to their run: which calls they answer, what labels they bring.

Call ids are unique in a reply, not in a run. So a result goes with the newest released call of its id that
nothing has answered yet, unless it says what an earlier one of that id was answered with: then it is that
result again. Anything else was made up, or never released here: so is a result without an id, and one of
what a provider ran itself, which came with the reply.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec import structs

from llm_proxy.exchange import Exchange
from llm_proxy.judging import Rules
from llm_proxy.policy.verdict import ResultLabel
from llm_proxy.records.advancing import run_update
from llm_proxy.records.evidence import Answered, Evidence, tool_call_key
from llm_proxy.records.inherited import NONE, Inherited
from llm_proxy.records.policy_rows import ClassifiedRow
from llm_proxy.records.runstate import JudgedCall, Mark, RunKey, RunState
from llm_proxy.records.view import ToolResultView
from llm_proxy.redacting.rules import Redaction
from llm_proxy.redacting.scanned import Scanned


@dataclass(slots=True)
class Arrivals:
    """What came of a request's results."""

    state: RunState
    """The run behind them."""
    answered: list[Answered] = field(default_factory=list[Answered])
    classified: dict[bytes, ClassifiedRow] = field(default_factory=dict[bytes, ClassifiedRow])
    views: list[ToolResultView] = field(default_factory=list[ToolResultView])
    tools: dict[tuple[str, str], str | None] = field(default_factory=dict[tuple[str, str], str | None])
    """The tool of each result, by id and digest; None where it is no result of a released call."""
    rejected: str = ""
    """What the posture refuses, as its caller is told."""

    def joined(self, evidence: Evidence, before: RunState, key: RunKey) -> Evidence:
        """The opening record, with what the results changed in the run."""
        after = self.state
        if after is before:
            return evidence
        labels = structs.replace(before, labels=after.labels)
        update = run_update(
            labels, key, sensitivity=after.sensitivity, untrusted=after.untrusted, marks=after.marks
        )
        return structs.replace(
            evidence,
            run_updates=(update,),
            answered=tuple(self.answered),
            classified=tuple(_highest([*evidence.classified, *self.classified.values()]).values()),
        )


def inspect(
    exchange: Exchange,
    state: RunState,
    rules: Rules | None,
    redaction: Redaction | None,
    now_us: int,
    over: Inherited = NONE,
) -> Arrivals:
    """Takes in the results of a request that is being admitted. Pure, since a commit may be tried again.

    `over`: what another run has whose conversation the request goes on with.
    """
    found = Arrivals(state)
    results = {(r.id, r.digest): r for message in exchange.arrived for r in message}
    kept = kept_by_vendor(exchange)
    if rules is None or redaction is None or not (results or kept or over != NONE):
        return found
    taking = _Taking(exchange, rules, redaction, now_us, found)
    for result in reversed(results.values()):  # the newest result is that of the newest call
        taking.take(result)
    found.views.reverse()
    for name in kept:
        taking.take_unread(name)
    taking.take_over(over)
    taking.finish(state)
    return found


class _Taking:
    """One request's results, taken in one by one."""

    def __init__(
        self, exchange: Exchange, rules: Rules, redaction: Redaction, now_us: int, into: Arrivals
    ) -> None:
        assert exchange.caller is not None
        self._run = RunKey(exchange.caller.agent.id, exchange.run_id)
        self._rules = rules
        self._redaction = redaction
        self._now_us = now_us
        self._into = into
        self._history = list(into.state.history)
        self._sensitivity, self._untrusted = into.state.sensitivity, into.state.untrusted
        self._labels = into.state.labels

    def take(self, result: Scanned) -> None:
        key = tool_call_key(result.id)
        calls = [n for n, call in enumerate(self._history) if key and _may_answer(call, key)]
        again = [n for n in calls if self._is_again(self._history[n], result)]
        waiting = [n for n in calls if self._history[n].answered_us is None]
        tool = self._history[(again or waiting or [-1])[-1]].tool if again or waiting else None
        self._into.tools[result.id, result.digest] = tool
        if again:
            return
        if waiting:
            self._answer(waiting[-1], result)
        label = self._rules.engine.result_label(tool, known=tool is not None)
        self._sensitivity = max(self._sensitivity, label.sensitivity)
        self._untrusted = self._untrusted or label.untrusted
        if label.rejected and not self._rules.shadow:
            self._into.rejected = (
                f"a result for tool call {result.id[:80]!r}, which was never released to the run"
            )
        self._into.views.append(self._view(result, tool, label))
        self._classify(result, tool)

    def take_unread(self, name: str) -> None:
        """What only the model's vendor knows: whatever may have come into it is an unknown result."""
        label = self._rules.engine.result_label(None, known=False)
        self._sensitivity = max(self._sensitivity, label.sensitivity)
        self._untrusted = True
        if label.rejected and not self._rules.shadow:
            self._into.rejected = f"{name[:80]!r}, of which only the model's vendor knows what it says"
        view = ToolResultView(
            tool_call_id=name,
            digest="",
            known=False,
            label=self._redaction.labels[label.sensitivity],
            untrusted=True,
        )
        self._into.views.append(view)

    def take_over(self, over: Inherited) -> None:
        """Labels and values of the run that the conversation comes from."""
        self._sensitivity = max(self._sensitivity, over.sensitivity)
        self._untrusted = self._untrusted or over.untrusted
        self._labels = tuple(dict.fromkeys((*self._labels, *over.labels)))
        into = self._into
        into.classified = _highest([*into.classified.values(), *over.rows_of(*_of(self._run))])

    def finish(self, before: RunState) -> None:
        """Settles how the run stands now; the very same where nothing changed."""
        into = self._into
        marks = before.marks | (Mark.CLASSIFIED if into.classified else 0)
        labels = self._sensitivity, self._untrusted, self._labels
        raised = labels != (before.sensitivity, before.untrusted, before.labels)
        if into.answered or into.classified or raised:
            into.state = structs.replace(
                before,
                revision=before.revision + 1,
                sensitivity=self._sensitivity,
                untrusted=self._untrusted,
                labels=self._labels,
                marks=int(marks),
                history=tuple(self._history),
            )

    @staticmethod
    def _is_again(call: JudgedCall, result: Scanned) -> bool:
        return call.answered_us is not None and call.result in (None, result.digest)

    def _answer(self, n: int, result: Scanned) -> None:
        call = self._history[n]
        self._history[n] = structs.replace(call, answered_us=self._now_us, result=result.digest)
        row = Answered(
            self._now_us,
            result.digest,
            self._run.agent_id,
            self._run.run_id,
            call.call_id,
            call.choice,
            call.position,
        )
        self._into.answered.append(row)

    def _view(self, result: Scanned, tool: str | None, label: ResultLabel) -> ToolResultView:
        return ToolResultView(
            tool_call_id=result.id,
            tool=tool or "",
            digest=result.digest,
            known=tool is not None,
            bytes=result.size,
            label=self._redaction.labels[label.sensitivity],
            untrusted=label.untrusted,
            redacted=result.counts(self._redaction.results, tool),
        )

    def _classify(self, result: Scanned, tool: str | None) -> None:
        """Remembers the values of classified fields; of one under two rules the higher rank."""
        into = self._into.classified
        for rule, values in zip(self._redaction.fields, result.values, strict=True):
            if not values or not rule.fits(tool):
                continue
            rank = rule.rank or 0
            for value in values:
                row = ClassifiedRow(*_of(self._run), value.hash, rank, value.words, value.length, rule.id)
                if value.hash not in into or into[value.hash].sensitivity < rank:
                    into[value.hash] = row


def _may_answer(call: JudgedCall, key: str) -> bool:
    return call.tool_call_id == key and call.decision == "allow" and not call.provider_run


def kept_by_vendor(exchange: Exchange) -> tuple[str, ...]:
    """Names of what the request goes on from that nobody here can read."""
    kept = exchange.intake.kept if exchange.intake is not None else ()
    stored = exchange.stored
    return kept if stored is None or stored.run_id else (*kept, stored.id)


def _highest(rows: Iterable[ClassifiedRow]) -> dict[bytes, ClassifiedRow]:
    """One row for each value, by its token: that of the highest rank."""
    found: dict[bytes, ClassifiedRow] = {}
    for row in rows:
        if row.token not in found or found[row.token].sensitivity < row.sensitivity:
            found[row.token] = row
    return found


def _of(run: RunKey) -> tuple[str, str]:
    return run.agent_id, run.run_id
