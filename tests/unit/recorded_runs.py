"""Runs as the proxy would record them, made up: what is judged is on record, and then counts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from llm_proxy.policy.context import AgentFacts, Context, Done, RunFacts, UserFacts
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.past import Came, Event, Judged, RunId, Start, key
from llm_proxy.policy.schema import Decision, Effect
from llm_proxy.policy.verdict import Proposed, Verdict, without_approver
from llm_proxy.records.view import Decision as Recorded
from llm_proxy.records.view import ToolResultView

BEGAN_US = 1_800_000_000_000_000
Calls = Sequence[tuple[str, object]]
"""Tools, and their arguments."""


@dataclass
class Proxy:
    """One agent's runs under one policy. `events` is the record; time goes by a second with each of them."""

    engine: PolicyEngine
    agent: AgentFacts = field(default_factory=lambda: AgentFacts("bot", role="support"))
    now_us: int = BEGAN_US
    events: list[Event] = field(default_factory=list[Event])
    said: dict[str, str] = field(default_factory=dict[str, str])
    _runs: dict[RunId, RunFacts] = field(default_factory=dict[RunId, RunFacts])
    _open: dict[RunId, list[tuple[str, str]]] = field(default_factory=dict[RunId, list[tuple[str, str]]])

    def reply(self, run: str, calls: Calls, said: str = "") -> tuple[Verdict, ...]:
        """Judges a reply's calls and puts the verdicts on record."""
        run_id, call_id = self._begun(run), f"call-{len(self.events)}"
        facts = self._runs[run_id]
        proposed = [
            Proposed(f"{call_id}-{n}", tool, args if isinstance(args, str) else json.dumps(args))
            for n, (tool, args) in enumerate(calls)
        ]
        context = Context(
            self.agent, UserFacts(), facts, self.now_us / 1e6, user_text=lambda: said, env="test"
        )
        verdicts = self.engine.decide(proposed, context)
        final = [without_approver(verdict) for verdict in verdicts]
        recorded = tuple(_recorded(c, v, self.engine) for c, v in zip(proposed, final, strict=True))
        self.said[call_id] = said
        self.events.append(
            Judged(self.now_us, len(self.events), run_id, call_id, recorded, self.agent, UserFacts(), "test")
        )
        self._runs[run_id] = _after(facts, final, recorded, self.now_us)
        self._open[run_id] += [(r.tool_call_id, r.tool) for r in recorded if r.released]
        return verdicts

    def results(self, run: str, count: int, unknown: int = 0) -> None:
        """The agent answers `count` of its calls, and `unknown` that nobody released."""
        run_id = self._begun(run)
        answered, self._open[run_id] = self._open[run_id][:count], self._open[run_id][count:]
        views = [ToolResultView(tool_call_id=id_, tool=tool) for id_, tool in answered]
        views += [ToolResultView(tool_call_id=f"forged-{n}", known=False) for n in range(unknown)]
        if not views:
            return
        call_id = f"call-{len(self.events)}"
        self.events.append(Came(self.now_us, len(self.events), run_id, call_id, tuple(views)))
        facts = self._runs[run_id]
        for view in views:
            label = self.engine.result_label(view.tool or None, known=view.known)
            facts = replace(
                facts,
                sensitivity=max(facts.sensitivity, label.sensitivity),
                untrusted=facts.untrusted or label.untrusted,
            )
        history = list(facts.history)
        at = [n for n, done in enumerate(history) if done.decision is Decision.ALLOW and not done.completed]
        for n in at[: len(answered)]:
            history[n] = replace(history[n], completed=True)
        self._runs[run_id] = replace(facts, history=tuple(history))

    def _begun(self, run: str) -> RunId:
        self.now_us += 1_000_000
        run_id = RunId(self.agent.id, run)
        if run_id not in self._runs:
            self._runs[run_id] = RunFacts(started_s=BEGAN_US / 1e6, role_at_start=self.agent.role)
            self._open[run_id] = []
        return run_id


@dataclass
class MadePast:
    """The record of a `Proxy`."""

    proxy: Proxy

    def start(self, run: RunId) -> Start:
        return Start(BEGAN_US / 1e6, self.proxy.agent.role)

    def before(self, event: Event) -> Iterator[Event]:
        return (one for one in self.proxy.events if one.run == event.run and key(one) < key(event))

    def user_text(self, event: Judged) -> str:
        return self.proxy.said[event.call_id]


def _recorded(call: Proposed, verdict: Verdict, engine: PolicyEngine) -> Recorded:
    return Recorded(
        tool_call_id=call.id,
        tool=call.name,
        arguments=call.arguments,
        decision=verdict.decision.value,
        rule=verdict.rule,
        why=verdict.why,
        effect=verdict.effect.value,
        hits=verdict.hits,
        policy=engine.policy.sha256,
    )


def _after(
    facts: RunFacts, verdicts: Sequence[Verdict], recorded: Sequence[Recorded], now_us: int
) -> RunFacts:
    done = tuple(
        Done(r.tool, v.effect, v.decision, False, v.digest, now_us / 1e6)
        for v, r in zip(verdicts, recorded, strict=True)
    )
    passed = [v for v in verdicts if v.decision is Decision.ALLOW]
    return replace(
        facts,
        calls=facts.calls + len(passed),
        writes=facts.writes + sum(v.effect is not Effect.READ for v in passed),
        irreversible=facts.irreversible + sum(v.effect is Effect.IRREVERSIBLE for v in passed),
        denials=facts.denials + len(verdicts) - len(passed),
        history=facts.history + done,
    )
