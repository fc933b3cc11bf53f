"""The policy engine: judges the calls of one reply as a set, in a fixed order, and fails towards denial.

Order: arguments, registration, schema and checks, then what forbids outright (tier, role, permission,
freeze), then every rule, the tier's or posture's own answer, sequence, caps. The strictest finding decides,
of equals the first. Pure: the same policy, calls and context give the same verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property

from llm_proxy.policy import names
from llm_proxy.policy.actions import Action, Finding, read_action
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.conditions import Fact, Facts
from llm_proxy.policy.context import Context
from llm_proxy.policy.globs import matches
from llm_proxy.policy.identity import folded, proven
from llm_proxy.policy.limits import Use, cap_findings, frozen, repeated, sequence_findings, uses
from llm_proxy.policy.schema import Decision, Effect, Tier, Trust, UnknownResults
from llm_proxy.policy.verdict import Judgement, Proposed, ResultLabel, Verdict, without_approver

__all__ = ["Decision", "PolicyEngine", "Proposed", "ResultLabel", "Verdict", "without_approver"]

MAX_CALLS = 128
"""Calls of one reply."""


class PolicyEngine:
    """Judges by one loaded policy. Stateless, usable from any thread."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def decide(self, calls: Sequence[Proposed], context: Context) -> tuple[Verdict, ...]:
        """One verdict per call, in their order. Never raises: whatever fails denies every call."""
        return self.judge(calls, context).verdicts

    def judge(self, calls: Sequence[Proposed], context: Context) -> Judgement:
        """As `decide`, with what was found on the way."""
        if len(calls) > MAX_CALLS:
            why = f"the reply proposes {len(calls)} calls; the limit is {MAX_CALLS}"
            return Judgement(tuple(_outright(names.BAD_ARGS, why) for _ in calls))
        try:
            judgement = _Judgement(self.policy, calls, context)
            return Judgement(judgement.verdicts(), judgement.identity())
        except Exception as error:  # noqa: BLE001 (a call that the engine can't judge must not pass)
            why = f"the policy engine failed with {type(error).__name__}"
            return Judgement(tuple(_outright(names.RULE_ERROR, why) for _ in calls))

    def uses(self, calls: Sequence[Proposed]) -> tuple[tuple[Use, ...], ...]:
        """What each call adds to counters by day and to sums, where it's released."""
        caps = self.policy.file.caps
        if not caps.counted or len(calls) > MAX_CALLS:
            return ((),) * len(calls)
        return tuple(uses(caps, read_action(call, self.policy)) for call in calls)

    def result_label(self, tool: str | None, known: bool) -> ResultLabel:  # noqa: FBT001 (as callers say it)
        """What a result brings into the run. `known`: we released the call it answers, to this run."""
        entry = self.policy.tools.get(tool) if tool is not None else None
        if known and entry is not None:
            result = entry.spec.result
            return ResultLabel(self.policy.file.rank(result.sensitivity), result.trust is Trust.UNTRUSTED)
        reject = not known and self.policy.file.posture.unknown_results is UnknownResults.REJECT
        return ResultLabel(self.policy.unknown_sensitivity, untrusted=True, rejected=reject)


def _outright(rule: str, why: str) -> Verdict:
    """A denial of calls that were not even read, and so have no digest and the worst effect."""
    return Verdict(Decision.DENY, rule, why, "The call could not be judged", Effect.IRREVERSIBLE, (), "")


class _Judgement:
    """One `decide`: holds what its calls share."""

    def __init__(self, policy: Policy, calls: Sequence[Proposed], context: Context) -> None:
        self._policy = policy
        self._file = policy.file
        self._context = context
        self._actions = [read_action(call, policy) for call in calls]

    def verdicts(self) -> tuple[Verdict, ...]:
        return tuple(self._verdict(n, action) for n, action in enumerate(self._actions))

    def identity(self) -> tuple[bool, ...]:
        if not self._policy.reads_identity:
            return ()
        return tuple(self._identity_proven(action) for action in self._actions)

    def _verdict(self, n: int, action: Action) -> Verdict:
        findings = list(self._before_rules(action))
        if not any(finding.decision is Decision.DENY for finding in findings):
            findings += self._rules_and_after(n, action)
        return _strictest(action, findings)

    def _before_rules(self, action: Action) -> Iterator[Finding]:
        if action.refused:
            yield Finding(Decision.DENY, names.BAD_ARGS, action.refused, f"Not readable: {action.refused}")
            return
        if not action.tool.registered:
            why = "the tool is not registered"
            yield Finding(self._file.posture.fallback, names.UNKNOWN_TOOL, why, "There is no such tool")
        complaint = action.tool.schema.complaint(action.arguments) if action.tool.schema else ""
        if complaint:
            yield Finding(Decision.DENY, names.SCHEMA, complaint, f"Wrong arguments: {complaint}")
            return
        yield from self._checks(action)
        yield from self._forbidden(action)

    def _checks(self, action: Action) -> Iterator[Finding]:
        """A pre-approved tool asks where a check doesn't hold; any other is denied."""
        pre_approved = action.tool.spec.tier is Tier.PRE_APPROVED
        for argument, holds in action.tool.checks:
            if not holds(action.arguments.get(argument), self._context.agent.scopes):
                where = action.tool.spec.check[argument]
                why = f"{argument} is not wholly within {where}"
                decision = Decision.ASK if pre_approved else Decision.DENY
                yield Finding(decision, names.check(argument), why, f"Not allowed: {why}")

    def _forbidden(self, action: Action) -> Iterator[Finding]:
        spec, agent = action.tool.spec, self._context.agent
        if spec.tier is Tier.PROHIBITED:
            yield Finding(
                Decision.DENY, names.PROHIBITED, "the tool is prohibited", "This tool is prohibited"
            )
        if spec.roles is not None and agent.role not in spec.roles:
            why = f"the agent's role is not one of {', '.join(spec.roles)}"
            yield Finding(Decision.DENY, names.ROLE, why, "Your role may not use this tool")
        if not any(matches(glob, action.tool.name) for glob in agent.tools):
            why = "the agent's own list of tools does not name it"
            yield Finding(Decision.DENY, names.AGENT_TOOLS, why, "You may not use this tool")
        yield from frozen(self._file.freeze, self._context.run)

    def _rules_and_after(self, n: int, action: Action) -> Iterator[Finding]:
        earlier, others = self._actions[:n], self._actions[:n] + self._actions[n + 1 :]
        spoken = list(self._rules(action, earlier))
        yield from spoken
        yield from self._standing(action, spoken_for=bool(spoken))
        yield from sequence_findings(self._file.sequence, action, others, self._context)
        yield from cap_findings(self._file.caps, action, earlier, self._context)

    def _rules(self, action: Action, earlier: Sequence[Action]) -> Iterator[Finding]:
        if not self._policy.rules:
            return
        activation = self._policy.conditions.activation(self._facts(action, earlier))
        for entry in self._policy.rules:
            rule = entry.rule
            hit, failure = entry.condition.evaluate(activation)
            if failure:
                why = f"rule {rule.id} failed: {failure}"
                yield Finding(Decision.DENY, names.RULE_ERROR, why, "A rule could not be evaluated")
                yield Finding(Decision.DENY, rule.id, why, "A rule could not be evaluated")
            elif hit:
                tell = rule.tell_model or f"Not allowed by the rule {rule.id}"
                yield Finding(rule.then, rule.id, rule.why, tell)

    def _standing(self, action: Action, *, spoken_for: bool) -> Iterator[Finding]:
        """What the tier says where it asks, and the posture where neither a tier nor a rule spoke."""
        spec = action.tool.spec
        tell = "This action needs a person's approval"
        match spec.tier:
            case Tier.HUMAN_APPROVAL:
                yield Finding(Decision.ASK, names.tier(spec.tier), "the tool's tier asks", tell)
            case Tier.PRE_APPROVED if action.tool.schema is None:
                yield Finding(Decision.ASK, names.tier(spec.tier), "the tool declares no args", tell)
            case None if not spoken_for and action.tool.registered:
                why = "no tier and no rule spoke for the tool"
                yield Finding(self._file.posture.default, names.POSTURE, why, "Not allowed by default")
            case _:
                return

    def _facts(self, action: Action, earlier: Sequence[Action]) -> Facts:
        return {
            **self._shared,
            **action.tool.facts,
            "args": action.arguments,
            "call.identity_from_user": self._policy.reads_identity and self._identity_proven(action),
            "call.siblings": len(self._actions) - 1,
            "call.repeated": repeated(action, earlier, self._context.run),
        }

    def _identity_proven(self, action: Action) -> bool:
        arguments = action.tool.spec.identity_args
        if not arguments:
            return not action.is_write
        return proven(arguments, action.arguments, self._user_text)

    @cached_property
    def _user_text(self) -> str:
        return folded(self._context.user_text())

    @cached_property
    def _shared(self) -> dict[str, Fact]:
        agent, user, run, now_s = (
            self._context.agent,
            self._context.user,
            self._context.run,
            self._context.now_s,
        )
        return {
            "agent.id": agent.id,
            "agent.team": agent.team,
            "agent.role": agent.role,
            "agent.owner": agent.owner,
            "agent.scopes": {name: list(values) for name, values in agent.scopes.items()},
            "user.id": _readable(user.id),
            "user.role": _readable(user.role),
            "user.clearance": self._clearance(),
            "user.verified": user.verified,
            "run.sensitivity": run.sensitivity,
            "run.untrusted": run.untrusted,
            "run.labels": sorted(run.labels),
            "run.calls": run.calls,
            "run.writes": run.writes,
            "run.irreversible": run.irreversible,
            "run.age_s": max(0, int(now_s - run.started_s)),
            "run.role_at_start": run.role_at_start,
            "run.depth": run.depth,
            "env": self._context.env,
            "now": datetime.fromtimestamp(now_s, UTC),
        }

    def _clearance(self) -> int:
        user, labels = self._context.user, self._file.labels.sensitivity
        return labels.index(user.clearance) if user.verified and user.clearance in labels else 0


def _readable(text: str) -> str:
    """Text from outside as CEL can hold it: it stops reading at U+0000, and raises at lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _strictest(action: Action, findings: Sequence[Finding]) -> Verdict:
    effect = action.tool.spec.effect
    if not findings:
        tier = action.tool.spec.tier
        rule = names.tier(tier) if tier else names.POSTURE
        return Verdict(Decision.ALLOW, rule, "", "", effect, (), action.digest)
    decider = max(findings, key=lambda finding: finding.decision.strictness)
    hits = dict.fromkeys(finding.rule for finding in findings if finding.rule != decider.rule)
    allowed = decider.decision is Decision.ALLOW
    return Verdict(
        decision=decider.decision,
        rule=decider.rule,
        why=decider.why,
        tell_model="" if allowed else decider.tell_model,
        effect=effect,
        hits=tuple(hits),
        digest=action.digest,
    )
