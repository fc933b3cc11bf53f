"""What agents do: tools in the policy, approvals, judgement, inspection. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llm_proxy.config.approvers import who_may_approve
from llm_proxy.policy.globs import matches
from llm_proxy.policy.schema import Ban, Mode, PolicyFile, Prerequisite, Tool
from llm_proxy.policy.vocabulary import Decision, Effect, Sink, Tier
from llm_proxy.posture.answers import Answer, Check, Found, Note, answered, names, not_applicable, share
from llm_proxy.posture.facts import Facts
from llm_proxy.posture.who import NO_POLICY, everything

_ASKING = (Tier.HUMAN_APPROVAL, Tier.PRE_APPROVED)
_OTHERS = re.compile(r"""!=\s*(["'])[^"']*\1""")
"""In a condition: what something is not."""
_UNENFORCED = ("no policy", "the policy is in shadow")
"""How the checks begin that make the answer no, whatever else holds."""


def tools(facts: Facts) -> Answer:
    return answered(
        "tools",
        "Are tools scoped by role, risk and environment?",
        _tools(facts),
        vital=_UNENFORCED,
    )


def _tools(facts: Facts) -> Iterator[Found]:
    file = facts.policy
    yield from _unenforced(file, "every tool call passes", "every tool call passes")
    if file is None:
        return
    yield Check(
        bool(file.tools),
        f"{len(file.tools)} tools are registered" if file.tools else "no tool is registered",
        "Register the tools that agents have under `tools` of the policy.",
    )
    yield _unregistered(file)
    open_ = [name for name, tool in file.tools.items() if tool.roles is None and tool.tier != Tier.PROHIBITED]
    anyone = [id_ for id_, agent in facts.config.agents.items() if everything(agent.tools)]
    loose = open_ if anyone else []
    yield Check(
        not loose,
        f"open to every role, while agents {names(anyone)} may be given any tool: {names(loose)}"
        if loose
        else "every tool is bounded by `roles` or by the agents' own `tools`",
        "Give these tools `roles` in the policy, or list each agent's `tools` in the config.",
    )
    risk = [name for name, tool in file.tools.items() if "risk" not in tool.model_fields_set]
    told = f"without a risk of their own: {names(risk)}" if risk else "every tool has a risk"
    yield Check(not risk, told, "Set `risk: low|medium|high` of each tool.")
    away = [
        name
        for name, tool in file.tools.items()
        if tool.sink is Sink.EXTERNAL and not tool.check and tool.tier in (None, Tier.AUTONOMOUS)
    ]
    told = (
        f"can reach any place outside: {names(away)}" if away else "what reaches outside is checked or asked"
    )
    yield Check(
        not away, told, "Name where they may go: `check: {argument: destination}`, or ask for approval."
    )
    named = "environment" in facts.config.server.model_fields_set
    told = f"environment {facts.config.server.environment!r}" + (
        "" if named else " by default, not by choice"
    )
    yield Check(
        named, told, "Set server.environment, and have each environment's config name a policy of its own."
    )


def approvals(facts: Facts) -> Answer:
    question = "Are high-impact actions behind approval?"
    file = facts.policy
    if file is not None and not _high_impact(file):
        return not_applicable("approvals", question, "no registered tool is of high risk or irreversible")
    return answered("approvals", question, _approvals(facts), vital=_UNENFORCED)


def _approvals(facts: Facts) -> Iterator[Found]:
    file = facts.policy
    yield from _unenforced(file, "nothing asks a person", "nothing waits for a person")
    if file is None:
        return
    impact = _high_impact(file)
    free = [name for name, tool in impact.items() if not _held_back(file, name, tool)]
    told = f"run without anybody asked: {names(free)}" if free else f"asked for or denied: {names(impact)}"
    yield Check(not free, told, "Set `tier: human-approval` (or prohibited), or write a rule that asks.")
    stopped = [name for name, tool in impact.items() if tool.tier is Tier.PROHIBITED]
    if stopped:
        yield Note(f"prohibited: {names(stopped)}")
    yield from _approvers(facts, file)


def _approvers(facts: Facts, file: PolicyFile) -> Iterator[Found]:
    asked = {tool.approval or "default" for tool in file.tools.values() if tool.tier in _ASKING}
    if any(rule.then is Decision.ASK for rule in file.rules):
        asked |= {tool.approval or "default" for tool in file.tools.values() if tool.tier != Tier.PROHIBITED}
    if file.posture.default is Decision.ASK:
        asked |= {tool.approval or "default" for tool in file.tools.values() if tool.tier is None}
    oidc = facts.config.oidc.on
    reach = {operator.id for operator in facts.config.operators if oidc or operator.token is not None}
    for name in sorted(asked):
        entry = file.approvals.get(name)
        if entry is None:
            told = f"approval {name!r} is not defined: what it would ask is denied"
            yield Check(False, told, f"Define `approvals.{name}` with its approvers.")
            continue
        who = who_may_approve(facts.config.operators, entry.approvers)
        able = [id_ for id_ in who if id_ in reach]
        told = f"approval {name!r} takes {entry.quorum}; {len(able)} can decide it: {names(able) or 'nobody'}"
        if len(who) > len(able):
            told += f"; without a token: {names(id_ for id_ in who if id_ not in reach)}"
        yield Check(
            len(able) >= entry.quorum,
            told,
            f"Give enough operators of approval {name!r} role approver, its group, and a token.",
        )


def _high_impact(file: PolicyFile) -> dict[str, Tool]:
    return {n: t for n, t in file.tools.items() if t.effect is Effect.IRREVERSIBLE or t.risk == "high"}


def _held_back(file: PolicyFile, name: str, tool: Tool) -> bool:
    """Whether something in the policy asks for it or denies it: its tier, or a rule that speaks of it.

    What only says when it may not run any more (a ban after something else, a sum that is used up) lets it
    run before that with nobody asked. A sum that asks past its bound, or leaves no room at all, does count.
    """
    if tool.tier in (*_ASKING, Tier.PROHIBITED):
        return True
    spoken_for = any(rule.then is Decision.ALLOW and _may_allow(rule.when, name, tool) for rule in file.rules)
    if tool.tier is None and file.posture.default is not Decision.ALLOW and not spoken_for:
        return True
    if any(rule.then is not Decision.ALLOW and _speaks_of(rule.when, name, tool) for rule in file.rules):
        return True
    if any(
        matches(total.tool, name) and (total.then is Decision.ASK or not total.max)
        for total in file.caps.sums
    ):
        return True
    if tool.effect is Effect.READ and tool.roles is not None:
        return True  # a read of high risk goes no further than its roles
    return any(_waits_for_a_person(step, name, tool) for step in file.sequence)


def _waits_for_a_person(step: Ban | Prerequisite, name: str, tool: Tool) -> bool:
    """Whether it runs only once somebody said that they looked at the run: only people report events."""
    return (
        isinstance(step, Prerequisite)
        and step.require.event is not None
        and (step.before.tool is None or matches(step.before.tool, name))
        and step.before.effect in (None, tool.effect)
    )


def _may_allow(when: str, name: str, tool: Tool) -> bool:
    """Whether an allowing rule may hit it, and then what the posture says of tools by default does not count.

    So may one that asks nothing of the tool, or that only says what the tool is not.
    """
    return _speaks_of(when, name, tool) or "tool." not in when or "!" in when


def _speaks_of(when: str, name: str, tool: Tool) -> bool:
    when = _OTHERS.sub("", when)
    effect = tool.effect.value if tool.effect is not Effect.READ else None
    words = [name, effect, "tool.risk" if tool.risk == "high" else None]
    return any(re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", when) for word in words if word)


def judgement(facts: Facts) -> Answer:
    return answered(
        "judgement",
        "Are sensitive actions judged before they run?",
        _judgement(facts),
        vital=_UNENFORCED,
    )


def _judgement(facts: Facts) -> Iterator[Found]:
    file = facts.policy
    if file is None:
        yield Check(False, "no policy is in force: tool calls are recorded, and none is judged", NO_POLICY)
        return
    told = f"policy {file.policy.id}, version {file.policy.version}, SHA-256 {facts.policy_sha256[:12]}…"
    yield Note(told)
    shadow = file.policy.mode is Mode.SHADOW
    told = "the policy is in shadow: it lets everything pass" if shadow else "the policy is enforced"
    yield Check(not shadow, told, "Set `policy.mode: enforce` once the shadow's verdicts are what you want.")
    default = file.posture.default
    yield Check(
        default is not Decision.ALLOW,
        f"a tool that no tier and no rule speaks for: {default.value}",
        "Set `posture.default: deny` or ask.",
    )
    yield _unregistered(file)
    loose = [
        name
        for name, tool in file.tools.items()
        if tool.effect is not Effect.READ and tool.args is None and tool.tier != Tier.PROHIBITED
    ]
    told = (
        f"write, with arguments of any shape: {names(loose)}"
        if loose
        else "what writes has declared arguments"
    )
    yield Check(
        not loose, told, "Declare `args` (JSON Schema) of these tools, so that rules can rely on them."
    )
    yield Note("paths under /v1/ that nothing can judge are refused while a policy is in force")
    counted = facts.records.tools if facts.records else None
    if counted is None or not counted.verdicts:
        yield Note(f"no verdict is recorded in the last {facts.days} days")
        return
    yield Check(
        counted.judged == counted.verdicts,
        f"{share(counted.judged, counted.verdicts)} recorded verdicts name the policy that judged",
        "Some calls ran while no policy was named; see `llm-proxy runs list` for when.",
    )


def inspection(facts: Facts) -> Answer:
    return answered(
        "inspection",
        "Is data inspected before the model sees it?",
        _inspection(facts),
        vital=_UNENFORCED,
    )


def _inspection(facts: Facts) -> Iterator[Found]:
    file = facts.policy
    yield from _unenforced(file, "what tools return reaches the model as it is", "nothing is held back")
    if file is None:
        return
    silent = [
        name
        for name, tool in file.tools.items()
        if tool.effect is Effect.READ
        and tool.tier != Tier.PROHIBITED
        and "result" not in tool.model_fields_set
    ]
    told = f"say nothing of what they return: {names(silent)}" if silent else "what tools return is labelled"
    yield Check(not silent, told, "Declare `result: {sensitivity, trust}` of these tools.")
    rules = [rule for rule in file.redact if "tool_result" in rule.places]
    kinds = sorted({rule.detect or f"field {rule.field}" for rule in rules})
    told = f"redacted in results: {names(kinds)}" if rules else "nothing is redacted in results"
    todo = "Add `redact` rules with `in: [tool_result]` for what a model must not see: secret, card_number, …"
    yield Check(bool(rules), told, todo)
    yield Note(f"a result that nobody asked for: {file.posture.unknown_results.value}")
    yield Note(
        f"a result is at most {file.input.max_result_bytes:,} bytes, arguments {file.input.max_args_bytes:,}"
    )
    masks = facts.config.records.mask_secrets
    told = "secrets are masked in records" if masks else "secrets are kept in records as they came"
    yield Check(masks, told, "Set records.mask_secrets: true.")


def _unenforced(file: PolicyFile | None, without: str, in_shadow: str) -> Iterator[Check]:
    """What goes on `without` a policy, and under one that only watches."""
    if file is None:
        yield Check(False, f"no policy is in force: {without}", NO_POLICY)
    elif file.policy.mode is Mode.SHADOW:
        yield Check(False, f"the policy is in shadow: {in_shadow}", "Set `policy.mode: enforce`.")


def _unregistered(file: PolicyFile) -> Check:
    fallback = file.posture.fallback
    told = f"a tool that is not registered: {fallback.value}"
    return Check(fallback is not Decision.ALLOW, told, "Set `posture.fallback: deny`.")
