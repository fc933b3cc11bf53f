"""What the demo prints: the run's timeline, what the policy kept back, the budgets, where to look next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from budgets import Unit
from llm_proxy.admin.budgets import BudgetUse
from llm_proxy.admin.story import Step
from llm_proxy.archive.listings import RunRow
from llm_proxy.cli.gutter import Gutter
from llm_proxy.cli.text import clean, line, money
from llm_proxy.cli.timeline import run_timeline
from llm_proxy.config import AgentConfig
from llm_proxy.runs.status import Standing

_BAR = 12


@dataclass(frozen=True, slots=True)
class Received:
    """One reply as the agent had it: the tool calls that reached it."""

    tools: tuple[str, ...]
    streamed: bool


@dataclass(frozen=True, slots=True)
class Played:
    """Everything that there is to tell. `replies` are as many as `steps`."""

    run: RunRow
    stands: Standing
    agent: AgentConfig | None
    steps: list[Step]
    replies: list[Received]
    budgets: list[BudgetUse]
    answer: str
    took_s: float
    command: str
    """How `llm-proxy` is called from here, with the config: ready to paste, but for the noun."""
    option: str
    directory: Path


def report(played: Played) -> RenderableType:
    """All but `what_next`, whose lines must not be broken."""
    intro = "The agent is a plain tool loop on the OpenAI SDK; its base_url is the proxy."
    return Group(
        _title("One agent, one run, as the proxy recorded it"),
        Text(intro, "dim"),
        Text(),
        run_timeline(played.run, played.agent, played.steps, played.stands),
        _title("What the model proposed, and what reached the agent"),
        Gutter(_replies(played.steps, played.replies)),
        Text(),
        Text("So the customer was not promised money that nobody had released:"),
        Gutter(Text(clean(played.answer)), "  ▌ ", "cyan"),
        _title("Spend against budgets"),
        Gutter(_budgets(played.budgets)),
    )


def what_next(played: Played) -> Text:
    """Commands that can be pasted as they stand, one to a line."""
    text = _title("Where to look next")
    for why, command in _commands(played):
        text.append(f"\n  {why}\n", "dim").append(f"    {command}", "bold")
    done = f"Done in {played.took_s:.1f} s. Everything is kept in {played.directory}"
    return text.append(f"\n\n{done}", "dim")


def _title(text: str) -> Text:
    return Text.assemble("\n", ("━━ ", "cyan"), (text, "bold"), "\n")


def _replies(steps: list[Step], replies: list[Received]) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in ("  reply", "the model proposed", "the agent received"):
        table.add_column(name, overflow="fold")
    for number, (step, reply) in enumerate(zip(steps, replies, strict=True), 1):
        kind = "streamed" if reply.streamed else "whole"
        table.add_row(Text(f"  {number} {kind}"), _tools(_proposed(step), reply.tools), _got(step, reply))
    return table


def _proposed(step: Step) -> tuple[str, ...]:
    reply = step.call.reply
    return tuple(call.name for choice in reply.choices for call in choice.calls) if reply else ()


def _tools(proposed: tuple[str, ...], received: tuple[str, ...]) -> Text:
    if not proposed:
        return Text("an answer", "dim")
    left = list(received)
    shown: list[Text] = []
    for name in proposed:
        kept = name in left
        if kept:
            left.remove(name)
        shown.append(Text(line(name) if kept else f"✖ {line(name)}", "" if kept else "bold red"))
    return Text(", ").join(shown)


def _got(step: Step, reply: Received) -> Text:
    text = Text(", ".join(map(line, reply.tools)) or "the answer", "green" if reply.tools else "dim")
    denied = [d.rule for d in step.call.decisions if d.decision != "allow"]
    return text.append(f" + a note ({line(', '.join(denied))})", "red") if denied else text


def _budgets(uses: list[BudgetUse]) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name, right in (("  budget", False), ("per", False), ("unit", False), ("used", True), ("of", True)):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    table.add_column("", no_wrap=True)
    shown = ""
    for use in uses:
        named = (f"  {use.budget}", use.window) if use.budget != shown else ("", "")
        shown = use.budget
        figures = (_amount(use, use.used), _amount(use, use.maximum))
        table.add_row(*named, use.unit.value, *figures, _bar(use.used, use.maximum))
    return table


def _amount(use: BudgetUse, value: int) -> str:
    return money(value) if use.unit is Unit.USD else f"{value:,}"


def _bar(used: int, most: int) -> Text:
    share = min(1.0, used / most) if most else 1.0
    full = max(1, round(share * _BAR)) if used else 0
    style = "green" if share < 0.5 else "yellow" if share < 0.8 else "red"
    return Text.assemble(("█" * full, style), ("░" * (_BAR - full), "dim"), f" {share:.1%}")


def _commands(played: Played) -> Iterator[tuple[str, str]]:
    base, option = played.command, played.option
    denied = next(
        (s.call.id for s in played.steps if any(d.decision != "allow" for d in s.call.decisions)), ""
    )
    yield "this run again, or as JSON with --json", f"{base} runs show {played.run.run_id}{option}"
    yield "the denied call in full: request, reply, verdicts", f"{base} calls show {denied} --json{option}"
    yield "proof that none of it was changed since", f"{base} audit verify{option}"
    yield "who may call, and what each one spent", f"{base} agents list{option}"
    token = f"LLM_PROXY_TOKEN=$(cat {shlex.quote(str(played.directory / 'admin-token'))})"
    yield "a key for an agent of your own", f"{token} {base} keys issue support-agent --ttl 1h{option}"
    yield "the same proxy, to call yourself", f"{base} serve{option}"
