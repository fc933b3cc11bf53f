"""One call on a timeline: what came in, what the model thought, said and wanted, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from llm_proxy.admin.story import NewMessage, Step
from llm_proxy.chat.events import ReasoningKind
from llm_proxy.chat.reply import OPAQUE, ReasoningPart, Reply, ToolCall
from llm_proxy.cli.effects import Row, effect_rows
from llm_proxy.cli.gutter import Gutter
from llm_proxy.cli.text import clean, clip, cost, duration, line
from llm_proxy.records.view import Attempt, CallView, Decision, ProviderUse, Status, Withheld
from llm_proxy.runs.effects import Effect
from routing.failures import FailureKind

_LABEL = 10
_SUPERSEDED = FailureKind.SUPERSEDED.value
_STATUS_STYLE: dict[Status, str] = {
    Status.OPEN: "cyan",
    Status.OK: "green",
    Status.REFUSED: "bold red",
    Status.FAILED: "bold red",
    Status.CUT: "yellow",
    Status.CLIENT_GONE: "yellow",
    Status.INTERRUPTED: "bold red",
}
_USUAL_ENDS = frozenset({"stop", "tool_call", "tool_calls"})

_ACTION = "execute_tool"
"""The operation of what no model proposed."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How many characters of each kind of text are shown."""

    prompt: int
    result: int
    words: int


BRIEF = Cut(prompt=600, result=280, words=2_000)
WHOLE = Cut(prompt=10**9, result=10**9, words=10**9)


def call_entry(
    step: Step, number: int, run_started_us: int, cut: Cut = BRIEF, effects: Sequence[Effect] = ()
) -> RenderableType:
    """One call, with a bar down its side; `effects` are those that its tool calls had, by report."""
    body = Table.grid(padding=(0, 1, 0, 0))
    body.add_column(width=_LABEL, no_wrap=True, style="dim")
    body.add_column(overflow="fold")
    for label, text in (*_rows(step, cut), *effect_rows(step.call, effects)):
        body.add_row(label, text)
    return Group(_call_line(step.call, number, run_started_us), Gutter(body, "│ "), Gutter(Text(), "│ "))


def _call_line(call: CallView, number: int, run_started_us: int) -> Text:
    offset = max(0, call.started_us - run_started_us) / 1e6
    text = Text.assemble(
        ("● ", _STATUS_STYLE[call.status]),
        (f"{number}", "bold"),
        (f"  +{duration(offset)}  ", "dim"),
        (line(call.model) or ("action" if call.operation == _ACTION else "no model"), "bold"),
    )
    if call.target:
        text.append(f" → {line(call.target)}")
    for part in _course(call):
        text.append("  ").append_text(part)
    return text


def _course(call: CallView) -> Iterator[Text]:
    if call.total_s is not None:
        yield Text(duration(call.total_s) + (" streamed" if call.stream else ""), "dim")
    if call.status is not Status.OK:
        yield Text(call.status.value, _STATUS_STYLE[call.status])
    odd = [reason for reason in call.finish_reasons if reason not in _USUAL_ENDS]
    if odd:
        yield Text(f"ended by {line(', '.join(odd))}", "yellow")


def _spent(call: CallView) -> Text:
    """Empty where nothing was used."""
    parts = [Text(cost(call.cost_micro_usd, call.cost_label), "cyan")]
    if call.usage is not None:
        parts += [Text(f"{call.usage.input:,} tokens in, {call.usage.output:,} out", "dim")]
        more = (("cached", call.usage.cached), ("reasoning", call.usage.reasoning))
        parts += [Text(f"{tokens:,} {word}", "dim") for word, tokens in more if tokens]
    return Text(", ").join(part for part in parts if part.plain)


def _rows(step: Step, cut: Cut) -> Iterator[Row]:
    call = step.call
    unknown = {result.tool_call_id for result in call.results if not result.known}
    for message in step.new:
        yield _came_in(message, cut, known=message.tool_call_id not in unknown)
    yield from [("withheld", _withheld(tool)) for tool in call.withheld]
    for attempt in sorted(call.attempts, key=lambda attempt: attempt.started_s):
        if attempt.failure:
            yield "tried", _failed_try(attempt)
        elif attempt.resumed:
            yield "tried", Text.assemble("continued at target ", (line(attempt.target), "bold"))
    if call.reasoning_withheld:
        yield "thinks", Text("the provider counts reasoning tokens and gives none of its words", "dim")
    yield from _did(call, cut)
    yield from [("used", _unasked(use)) for use in call.provider_tools if use.rule]
    if step.received is not None:
        yield "received", _received(step.received, call.reply)
    spent = _spent(call)
    if spent.plain:
        yield "spends", spent
    if call.problem is not None:
        what = Text(line(call.problem.kind), _STATUS_STYLE[call.status])
        if call.problem.status:
            what.append(f" {call.problem.status}", "not bold")
        yield (
            call.status.value.replace("_", " ")[:_LABEL],
            what.append(f": {line(call.problem.message)}", "not bold"),
        )


def _did(call: CallView, cut: Cut) -> Iterator[Row]:
    """What the model said, or as much of it as is kept; of an action, what was asked."""
    if call.reply is not None:
        yield from _said(call.reply, call.decisions, cut)
    elif call.operation == _ACTION or not call.kept:
        yield from _asked(call.decisions, cut)
    if not call.kept:
        yield "content", Text("some of it is not kept: deleted by retention, or never stored", "dim")


def _asked(decisions: Iterable[Decision], cut: Cut) -> Iterator[Row]:
    """Of an action that no model proposed."""
    for decision in decisions:
        arguments = _arguments(decision.arguments, cut) if decision.kept else "(not kept)"
        text = Text.assemble((line(decision.tool), "bold"), arguments, "\n")
        yield "asks", _verdict(text, decision)


def _came_in(message: NewMessage, cut: Cut, *, known: bool) -> Row:
    if message.tool_call_id:
        text = Text.assemble((line(message.tool) or "unknown tool", "bold"), " → ")
        text.append(line(clip(message.text, cut.result)), "dim")
        if not known:
            text.append("  answers no call that was released to this run", "yellow")
        return "result", text
    said = Text(clean(clip(message.text, cut.prompt)))
    if message.role in ("system", "developer"):
        said.stylize("dim")
    return line(message.role)[:_LABEL] or "message", said


def _unasked(use: ProviderUse) -> Text:
    return Text.assemble((line(use.tool), "bold"), ", run by the provider: ", (line(use.rule), "yellow"))


def _withheld(tool: Withheld) -> Text:
    verb = "would be withheld" if tool.shadow else "was not offered"
    text = Text.assemble((line(tool.tool), "bold"), f" {verb}, by rule ", (line(tool.rule), "bold yellow"))
    return text.append(f": {line(tool.why)}", "dim") if tool.why else text


def _failed_try(attempt: Attempt) -> Text:
    # Of two at once the slower one is called off, which is no failure of its target.
    mark = ("– ", "dim") if attempt.failure == _SUPERSEDED else ("✖ ", "red")
    text = Text.assemble(mark, (line(attempt.target), "bold"))
    if attempt.api_key:
        text.append(f" (API key {attempt.api_key})")
    text.append(f" {line(attempt.failure)}")
    return text.append(f": {line(attempt.detail)}", "dim") if attempt.detail else text


def _said(reply: Reply, decisions: Iterable[Decision], cut: Cut) -> Iterator[Row]:
    judged = {(decision.choice, decision.index): decision for decision in decisions}
    for choice in reply.choices:
        mark = f" {choice.index}" if len(reply.choices) > 1 else ""
        for part in choice.reasoning:
            yield "thinks" + mark, _thought(part, cut)
        for tool in choice.server_tools:
            yield "used" + mark, Text.assemble((line(tool.name), "bold"), ", run by the provider")
        if choice.text.strip():
            yield "says" + mark, Text(clean(clip(choice.text, cut.words)).strip())
        if choice.refusal:
            yield "declines" + mark, Text(clean(clip(choice.refusal, cut.words)).strip(), "yellow")
        for call in choice.calls:
            yield "proposes" + mark, _proposal(call, judged.get((call.choice, call.index)), cut)
    if reply.error:
        yield "error", Text(line(reply.error), "red")


def _thought(part: ReasoningPart, cut: Cut) -> Text:
    if part.kind in OPAQUE:
        return Text(f"{part.kind.value} reasoning, {len(part.text):,} characters", "dim")
    if not part.text.strip():
        return Text("reasoning without words, signed by the provider", "dim")
    text = Text(clean(clip(part.text, cut.words)).strip(), "dim italic")
    kind = "" if part.kind is ReasoningKind.RAW else f" ({part.kind.value.replace('_', ' ')})"
    return text.append(kind, "not italic")


def _proposal(call: ToolCall, decision: Decision | None, cut: Cut) -> Text:
    text = Text.assemble((line(call.name), "bold"), _arguments(call.arguments, cut))
    if decision is None:
        return text.append("\n").append(
            "not judged: no policy was in force, or the reply did not end", "yellow"
        )
    text.append("\n")
    return _verdict(text, decision)


def _verdict(text: Text, decision: Decision) -> Text:
    rule = line(decision.rule)
    if decision.decision == "allow":
        text.append("✔ allowed", "green")
        return text.append(f" by {rule}", "dim") if rule else text.append(", no policy is in force", "dim")
    if decision.shadow:
        text.append("✖ would be denied", "yellow").append(" by rule ").append(rule, "bold yellow")
        text.append(" (shadow mode: it passed)")
    else:
        text.append("✖ denied", "bold red").append(" by rule ").append(rule, "bold red")
    return text.append(f": {line(decision.why)}") if decision.why else text


def _arguments(raw: str, cut: Cut) -> str:
    """Like a call in code where the arguments are an object, else as they came."""
    try:
        parsed = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return f"({clip(line(raw), cut.prompt)})"
    shown = ", ".join(f"{line(name)}={line(bytes(value).decode())}" for name, value in parsed.items())
    return f"({clip(shown, cut.prompt)})"


def _received(received: Reply, emitted: Reply | None) -> Text:
    """What the agent saw in place of the reply: the calls that were left, and the text that was put in."""
    if not received.choices:
        return Text("nothing of this reply reached the agent", "yellow")
    calls = [call.name for choice in received.choices for call in choice.calls]
    text = Text.assemble("instead: ", (line(", ".join(calls)) or "no tool call", "bold"))
    added = "\n".join(_added(received, emitted))
    return text.append(", and the text ").append(f"“{line(added)}”", "magenta") if added else text


def _added(received: Reply, emitted: Reply | None) -> Iterator[str]:
    before = {choice.index: choice.text for choice in emitted.choices} if emitted else {}
    for choice in received.choices:
        more = choice.text.removeprefix(before.get(choice.index, "")).strip()
        if more:
            yield more
