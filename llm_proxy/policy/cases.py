"""Running the in-file `tests:` of a policy, and finding the rules that none of them hits."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from llm_proxy.policy import names
from llm_proxy.policy.canonical import digest
from llm_proxy.policy.case_schema import Case, CaseCall, Expectation
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.context import AgentFacts, Context, DayFacts, Done, RunFacts, UserFacts
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.verdict import Proposed, Verdict
from llm_proxy.policy.vocabulary import Decision, Effect

NOW_S = 1_700_000_000.0
"""The moment at which every case is judged."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """`expected` and `got` read like `deny by exfil`; `got` lists the other hits too."""

    name: str
    passed: bool
    expected: str
    got: str


@dataclass(frozen=True, slots=True)
class CaseReport:
    """`never_hit`: ids of `rules` and `sequence` that no case hit."""

    results: tuple[CaseResult, ...]
    never_hit: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.never_hit and all(result.passed for result in self.results)


def run_cases(policy: Policy) -> CaseReport:
    """Judge every case as the engine would judge the call; an ask stays an ask, whoever could approve."""
    engine = PolicyEngine(policy)
    results: list[CaseResult] = []
    hit: set[str] = set()
    for case in policy.file.tests:
        verdict = _judge(engine, case)
        results.append(_result(case.name, case.expect, verdict))
        spoke = {verdict.rule, *verdict.hits}
        if names.RULE_ERROR not in spoke:
            hit |= spoke
    return CaseReport(tuple(results), tuple(rule for rule in names.own_rules(policy.file) if rule not in hit))


def _result(name: str, expect: Expectation, verdict: Verdict) -> CaseResult:
    passed = verdict.decision is expect.decision and expect.rule in (None, verdict.rule)
    expected = f"{expect.decision} by {expect.rule}" if expect.rule else str(expect.decision)
    got = f"{verdict.decision} by {verdict.rule}"
    if verdict.hits:
        got += f" (also {', '.join(verdict.hits)})"
    return CaseResult(name, passed, expected, got)


def _judge(engine: PolicyEngine, case: Case) -> Verdict:
    calls = [*case.siblings, case.call]
    proposed = [Proposed(f"case_{n}", call.tool, _text(call)) for n, call in enumerate(calls)]
    return engine.decide(proposed, _context(engine, case))[-1]


def _text(call: CaseCall) -> str:
    return msgspec.json.encode(call.args).decode()


def _context(engine: PolicyEngine, case: Case) -> Context:
    agent, user = case.agent, case.user
    return Context(
        agent=AgentFacts(agent.id, agent.team, agent.role, agent.owner, agent.scopes, agent.tools),
        user=UserFacts(user.id, user.role, user.clearance or "", user.verified),
        run=_run(engine, case),
        now_s=NOW_S,
        day=DayFacts(case.run.day_calls, case.run.day_writes),
        sums=case.run.sums,
        user_text=lambda: user.said,
        env=case.env,
    )


def _run(engine: PolicyEngine, case: Case) -> RunFacts:
    """The run that `history` leads to, with the case's own values over it."""
    done = _history(engine.policy, case)
    labels = [engine.result_label(call.tool, known=True) for call in done]
    given = case.run
    sensitivity = max((label.sensitivity for label in labels), default=0)
    untrusted = any(label.untrusted for label in labels)
    writes = sum(call.effect is not Effect.READ for call in done)
    irreversible = sum(call.effect is Effect.IRREVERSIBLE for call in done)
    return RunFacts(
        sensitivity=sensitivity if given.sensitivity is None else engine.policy.file.rank(given.sensitivity),
        untrusted=untrusted if given.untrusted is None else given.untrusted,
        labels=frozenset(given.labels),
        calls=len(done) if given.calls is None else given.calls,
        writes=writes if given.writes is None else given.writes,
        irreversible=irreversible if given.irreversible is None else given.irreversible,
        denials=given.denials,
        started_s=NOW_S - given.age_s,
        role_at_start=case.agent.role if given.role_at_start is None else given.role_at_start,
        depth=given.depth,
        history=done,
        events=dict.fromkeys(given.events, NOW_S),
    )


def _history(policy: Policy, case: Case) -> tuple[Done, ...]:
    """One second between calls, the last of them one second ago."""
    calls = [CaseCall(tool=call) if isinstance(call, str) else call for call in case.history]
    return tuple(_done(policy, call, NOW_S - (len(calls) - n)) for n, call in enumerate(calls))


def _done(policy: Policy, call: CaseCall, at_s: float) -> Done:
    effect = policy.entry(call.tool).spec.effect
    return Done(call.tool, effect, Decision.ALLOW, True, digest(call.tool, call.args), at_s)
