"""What `llm-proxy policy` prints for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.text import Text

from llm_proxy.admin.policy import CallExplanation, CallWhy, Simulated
from llm_proxy.admin.policy_shown import PolicyShown, RuleLine
from llm_proxy.admin.policy_tools import ToolLine
from llm_proxy.cli.output import Column, complain, console, print_table
from llm_proxy.cli.text import clip, count, line, moment
from llm_proxy.policy.explain import CallExplained, RunThen
from llm_proxy.policy.learn import Learning
from llm_proxy.policy.simulate import Change
from llm_proxy.policy.told_cases import Tested

_STYLES = {"allow": "green", "ask": "yellow", "deny": "bold red"}
_SHA = 12
_ARGUMENTS = 2_000
_HISTORY = 20


def print_tested(found: Tested) -> None:
    for case in found.cases:
        if not case.passed:
            complain(
                f"{found.file}:{case.line}: test {line(case.name)!r} expects {case.expected}, got {case.got}"
            )
    for rule in found.never_hit:
        complain(f"{found.file}:{rule.line}: rule {rule.rule!r} is hit by no test: add one that hits it")
    passed = sum(case.passed for case in found.cases)
    text = f"{count(passed, 'test')} of {len(found.cases):,} passed"
    _say(
        Text(
            f"{text}, and every rule is hit." if found.passed else f"{text}.", "green" if found.passed else ""
        )
    )


def print_policy(found: PolicyShown, limit: int) -> None:
    tiers = ", ".join(f"{number} {tier}" for tier, number in found.tiers.items())
    _say(
        Text.assemble(
            (found.id, "bold"), f" version {found.version}, {found.mode}, sha256 {found.sha256[:_SHA]}"
        )
    )
    tools = f"{count(found.tools, 'tool')}{f' ({tiers})' if tiers else ''}, {count(found.rule_count, 'rule')}"
    _say(Text(f"{tools}, {found.sequence_count:,} in sequence, {count(found.cases, 'test')}", "dim"))
    columns = [
        Column("rule", "bold"),
        *(Column(name, right=True) for name in ("allowed", "asked", "denied", "also")),
    ]
    print_table(
        [*columns, Column("last")], map(_rule, found.rules[:limit]), "No verdict is on record in that time."
    )
    _say(
        Text(
            f"{count(found.judged, 'verdict')} since {found.since_at}.",
            "dim",
        )
    )
    if found.never_hit:
        _say(Text(f"Never hit: {', '.join(found.never_hit)}.", "yellow"))


def _rule(rule: RuleLine) -> list[str | Text]:
    name = rule.rule if rule.own else Text(rule.rule, "not bold")
    return [
        name,
        *(f"{n:,}" for n in (rule.allowed, rule.asked, rule.denied, rule.also)),
        moment(rule.last_us),
    ]


def print_tools(found: Sequence[ToolLine]) -> None:
    columns = [Column(name) for name in ("tier", "effect", "risk", "roles", "approval", "owner", "arguments")]
    empty = "The registry is empty: llm-proxy policy learn proposes one from recorded traffic."
    print_table([Column("tool", "bold"), *columns], map(_tool, found), empty)


def _tool(tool: ToolLine) -> list[str | Text]:
    checked = ["a schema"] if tool.schema else []
    checked += [f"{argument}: {where}" for argument, where in tool.destinations.items()]
    roles = ", ".join(tool.roles) or "any"
    return [
        *map(line, (tool.tool, tool.tier, tool.effect, tool.risk, roles, tool.approval, tool.owner)),
        line(", ".join(checked) or "any"),
    ]


def print_explanation(found: CallExplanation) -> None:
    _say(
        Text.assemble(
            "call ", (found.call_id, "bold"), f" of run {line(found.run_id)}, agent {line(found.agent_id)}"
        )
    )
    if not found.same_policy:
        judged = found.verdicts[0].policy[:_SHA]
        told = f"It was judged by policy {judged}" if judged else "No policy was in force then"
        _say(Text(f"{told}; this is what {found.policy.id} ({found.policy.sha256[:_SHA]}) says.", "yellow"))
    for verdict in found.verdicts:
        _verdict(verdict)
    if not found.reproduced:
        why = "so it isn't known on what it rested" if found.same_policy else "which another policy needn't"
        complain(f"NOT REPRODUCED: judging again doesn't come to what is on record, {why}.")


def _verdict(found: CallWhy) -> None:
    _say(Text(f"\nat {moment(found.at_us)} ({found.at})", "dim"))
    for text in _run(found.run):
        _say(Text.assemble(("run    ", "dim"), text))
    for call in found.calls:
        for label, text in _call(call):
            _say(Text.assemble((f"{label:<7}", "dim"), text))


def _run(run: RunThen) -> Iterator[str]:
    trust = "untrusted" if run.untrusted else "trusted"
    yield f"{run.label or run.sensitivity} and {trust}" + (
        f", labels {', '.join(run.labels)}" if run.labels else ""
    )
    yield (
        f"{count(run.calls, 'call')} before, {count(run.writes, 'write')}, {run.irreversible} irreversible, "
        f"{count(run.denials, 'denial')}, depth {run.depth}, as {run.role_at_start or 'no role'}"
    )
    if run.counters:
        yield "used: " + ", ".join(f"{cap} {used:g}" for cap, used in run.counters.items())
    if run.events:
        yield "events: " + ", ".join(f"{name} at {moment(at)}" for name, at in run.events.items())
    if not run.snapshot:
        yield "put together from the run's records: what it rested on was not recorded"
    for done in run.history[-_HISTORY:]:
        came = "answered" if done.completed else "not answered"
        yield f"{moment(done.at_us)} {line(done.tool)} ({done.effect}) {done.decision}, {came}"


def _call(call: CallExplained) -> Iterator[tuple[str, Text]]:
    yield "", Text("")
    arguments = clip(line(call.arguments), _ARGUMENTS)
    yield (
        "call",
        Text.assemble((line(call.tool), "bold"), f" {arguments}  ", (f"id {line(call.tool_call_id)}", "dim")),
    )
    yield "digest", Text(call.digest, "dim")
    if call.masked:
        yield "", Text("values were masked on record: this isn't all that was judged", "yellow")
    fate = "released" if call.released else "stripped from the reply"
    if call.shadow:
        fate += " (shadow)"
    yield "record", _said(call.decision, call.rule, call.hits, call.why).append(f" · {fate}")
    again = _said(call.again, call.again_rule, call.again_hits, call.again_why)
    yield (
        "again",
        again.append(
            " · the same" if call.reproduced else " · DIFFERS", "" if call.reproduced else "bold red"
        ),
    )
    for rule in call.rules:
        if rule.text:
            yield "rule", Text.assemble((line(rule.rule), "bold"), f": {line(rule.text)}")


def _said(decision: str, rule: str, hits: tuple[str, ...], why: str) -> Text:
    text = Text.assemble((decision, _STYLES.get(decision, "")), " by ", (line(rule) or "nothing", "bold"))
    if why:
        text.append(f": {line(why)}")
    return text.append(f" (also {line(', '.join(hits))})") if hits else text


def print_simulated(found: Simulated) -> None:
    old = found.against.id if found.against else "the record"
    told = (
        f"{count(found.judged, 'tool call')} in {count(found.runs, 'run')} judged again by {found.policy.id}"
    )
    _say(Text(f"{told} ({found.policy.sha256[:_SHA]}), against {old}."))
    moved = ([_word(one.was), _word(one.now), f"{one.count:,}"] for one in found.moved)
    print_table([Column(old), Column(found.policy.id), Column("calls", right=True)], moved, "")
    if found.changes:
        columns = [Column(name) for name in ("was", "by", "is", "by", "tool", "agent", "run")]
        print_table([*columns, Column("call", whole=True)], map(_change, found.changes), "")
    left = found.changed - len(found.changes)
    if left > 0:
        _say(Text(f"{count(left, 'change')} more, which --limit shows.", "dim"))
    if found.rule_changed:
        _say(Text(f"{count(found.rule_changed, 'call')} more: the same decision, by another rule.", "dim"))
    if found.unread:
        _say(Text(f"{count(found.unread, 'call')} not judged again: their arguments are not kept.", "yellow"))
    if found.outside:
        _say(
            Text(
                f"{count(found.outside, 'call')} denied by a budget, an envelope or the agent's own tools.",
                "dim",
            )
        )
    if found.never_hit:
        _say(Text(f"Never hit: {', '.join(found.never_hit)}.", "yellow"))
    _say(
        Text(
            "Nothing would change." if not found.changed else f"{count(found.changed, 'call')} would change.",
            "bold",
        )
    )


def _change(change: Change) -> list[str | Text]:
    return [
        _word(change.was),
        line(change.was_rule),
        _word(change.now),
        line(change.now_rule),
        line(change.tool),
        line(change.agent_id),
        line(change.run_id),
        change.call_id,
    ]


def _word(decision: str) -> Text:
    return Text(decision, _STYLES.get(decision, ""))


def learned(found: Learning, out: Path | None) -> str:
    """What was found, on one line."""
    told = f"{count(len(found.tools), 'tool')} in {count(found.calls, 'tool call')}"
    if found.left_out:
        told += f" ({found.left_out:,} left out: names that no policy can hold, or too many tools)"
    return f"{told}. Next: llm-proxy policy test {out}" if out else f"{told}."


def _say(text: Text) -> None:
    console().print(text, soft_wrap=True)
