"""Replays AgentDojo's tool calls against `bench/policies`: what gets through, what asks, what is denied.

Run as `python -m bench.agentdojo FILE`, with what `bench.agentdojo_export` wrote; without FILE the package
`agentdojo` must be installed. No model takes part. A user task makes the calls that the benchmark gives as
its solution. An attack is made as by a model that obeys at once: the user task's calls up to the first whose
result carries an injection, then the calls that solve the injection task. Run state is kept as the proxy
keeps it; what asks in a user task is approved.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from bench.agentdojo_export import export
from llm_proxy.policy.canonical import digest
from llm_proxy.policy.cases import run_cases
from llm_proxy.policy.context import AgentFacts, Context, Done, RunFacts, UserFacts
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.load import load_policy
from llm_proxy.policy.schema import Decision, Effect
from llm_proxy.policy.verdict import Proposed, Verdict

POLICIES = Path(__file__).parent / "policies"
BEGAN_S = 1_700_000_000.0
EVERY_S = 5.0
"""Between two calls of a run."""


class Call(msgspec.Struct, frozen=True):
    tool: str
    args: dict[str, Any]
    injected: bool = False


class UserTask(msgspec.Struct, frozen=True):
    prompt: str
    calls: tuple[Call, ...]


class InjectionTask(msgspec.Struct, frozen=True):
    goal: str
    calls: tuple[Call, ...]


class Suite(msgspec.Struct, frozen=True):
    user_tasks: dict[str, UserTask]
    injection_tasks: dict[str, InjectionTask]


class Dump(msgspec.Struct, frozen=True):
    package: str
    suites_version: str
    suites: dict[str, Suite]


class Run:
    """One run of an agent under a policy: judges a call, and remembers it as the proxy would."""

    def __init__(self, engine: PolicyEngine, prompt: str) -> None:
        self._engine = engine
        self._prompt = prompt
        self._history: list[Done] = []
        self._sensitivity = 0
        self._untrusted = False

    def propose(self, call: Call, *, approved: bool) -> Verdict:
        """The verdict on `call`. Where it may run (or asks, and is `approved`), its result is in the run."""
        now_s = BEGAN_S + EVERY_S * len(self._history)
        text = json.dumps(call.args)
        (verdict,) = self._engine.decide([Proposed("call", call.tool, text)], self._context(now_s))
        runs = verdict.decision is Decision.ALLOW or (approved and verdict.decision is Decision.ASK)
        decision = Decision.ALLOW if runs else Decision.DENY
        made = digest(call.tool, call.args)
        self._history.append(Done(call.tool, verdict.effect, decision, runs, made, now_s))
        if runs:
            label = self._engine.result_label(call.tool, known=True)
            self._sensitivity = max(self._sensitivity, label.sensitivity)
            self._untrusted |= label.untrusted
        return verdict

    def _context(self, now_s: float) -> Context:
        allowed = [done for done in self._history if done.decision is Decision.ALLOW]
        return Context(
            agent=AgentFacts("agent"),
            user=UserFacts("user"),
            run=RunFacts(
                sensitivity=self._sensitivity,
                untrusted=self._untrusted,
                calls=len(allowed),
                writes=sum(done.effect is not Effect.READ for done in allowed),
                irreversible=sum(done.effect is Effect.IRREVERSIBLE for done in allowed),
                denials=len(self._history) - len(allowed),
                started_s=BEGAN_S,
                history=tuple(self._history),
            ),
            now_s=now_s,
            user_text=lambda: self._prompt,
        )


class Outcome(NamedTuple):
    """The strictest verdict of the calls that matter, how many asked, and which rules restricted."""

    strictest: Decision
    asked: int
    rules: frozenset[str]


def solve(engine: PolicyEngine, task: UserTask) -> Outcome:
    run = Run(engine, task.prompt)
    return _outcome([run.propose(call, approved=True) for call in task.calls])


def attack(engine: PolicyEngine, task: UserTask, injection: InjectionTask) -> Outcome | None:
    """None where the task's solution reads nothing that carries an injection."""
    first = next((n for n, call in enumerate(task.calls) if call.injected), None)
    if first is None:
        return None
    run = Run(engine, task.prompt)
    for call in task.calls[: first + 1]:
        run.propose(call, approved=True)
    return _outcome([run.propose(call, approved=False) for call in injection.calls])


def _outcome(verdicts: Sequence[Verdict]) -> Outcome:
    restricted = [verdict for verdict in verdicts if verdict.decision is not Decision.ALLOW]
    strictest = max((v.decision for v in verdicts), key=lambda d: d.strictness, default=Decision.ALLOW)
    asked = sum(verdict.decision is Decision.ASK for verdict in verdicts)
    return Outcome(strictest, asked, frozenset(verdict.rule for verdict in restricted))


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of tasks and attacks by their strictest verdict, and of the rules that restricted them."""

    tasks: Mapping[Decision, int]
    questions: int
    attacks: Mapping[Decision, int]
    without_calls: int
    """Injection tasks that the benchmark gives no calls for: nothing to replay."""
    task_rules: Mapping[str, int]
    attack_rules: Mapping[str, int]
    landed: Sequence[str]
    """Injection tasks that landed at least once."""


def replay(engine: PolicyEngine, suite: Suite) -> Report:
    """Every user task by itself, and every attack on every user task."""
    solved = [solve(engine, task) for task in suite.user_tasks.values()]
    injections = {id_: found for id_, found in suite.injection_tasks.items() if found.calls}
    attacked = [
        (id_, outcome)
        for task in suite.user_tasks.values()
        for id_, injection in injections.items()
        if (outcome := attack(engine, task, injection)) is not None
    ]
    return Report(
        tasks=Counter(outcome.strictest for outcome in solved),
        questions=sum(outcome.asked for outcome in solved),
        attacks=Counter(outcome.strictest for _, outcome in attacked),
        without_calls=len(suite.injection_tasks) - len(injections),
        task_rules=Counter(rule for outcome in solved for rule in outcome.rules),
        attack_rules=Counter(rule for _, outcome in attacked for rule in outcome.rules),
        landed=sorted({id_ for id_, outcome in attacked if outcome.strictest is Decision.ALLOW}),
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("file", type=Path, nargs="?", help="what bench.agentdojo_export wrote")
    options.add_argument("--policies", type=Path, default=POLICIES, help="a folder of agentdojo-SUITE.yaml")
    chosen = options.parse_args()
    raw = chosen.file.read_bytes() if chosen.file else json.dumps(cast("object", export())).encode()
    dump = msgspec.json.decode(raw, type=Dump)
    print(f"{dump.package}, task suites {dump.suites_version}; calls replayed, no model took part")
    for name, suite in dump.suites.items():
        policy = load_policy(chosen.policies / f"agentdojo-{name}.yaml")
        if not run_cases(policy).passed:
            raise SystemExit(f"the tests of agentdojo-{name}.yaml fail: llm-proxy policy test")
        _print(name, policy.sha256, replay(PolicyEngine(policy), suite))


def _print(name: str, sha256: str, report: Report) -> None:
    tasks, attacks = report.tasks, report.attacks
    print(f"\n{name} (policy {sha256[:12]})")
    print(
        f"  {sum(tasks.values())} user tasks: {tasks[Decision.ALLOW]} finish without a question, "
        f"{tasks[Decision.ASK]} after {report.questions} questions, {tasks[Decision.DENY]} denied"
    )
    print(
        f"  {sum(attacks.values())} attacks: {attacks[Decision.ALLOW]} landed, {attacks[Decision.ASK]} need "
        f"a person's yes, {attacks[Decision.DENY]} denied; {report.without_calls} goals have no calls"
    )
    for what, rules in (("tasks", report.task_rules), ("attacks", report.attack_rules)):
        print(
            f"  {what} restricted by: " + (", ".join(f"{r} {n}" for r, n in sorted(rules.items())) or "none")
        )
    if report.landed:
        print(f"  landed: {', '.join(report.landed)}")


if __name__ == "__main__":
    main()
