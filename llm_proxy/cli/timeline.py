"""A run as a timeline that a person can read: who, each call, and what it all came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from llm_proxy.admin.run_told import RunTold
from llm_proxy.admin.story import Step
from llm_proxy.archive.listings import RunRow
from llm_proxy.cli.beside import Beside, happened_beside
from llm_proxy.cli.effects import Row, by_cause, effect_line
from llm_proxy.cli.entry import call_entry
from llm_proxy.cli.gutter import Gutter
from llm_proxy.cli.run_stands import standing_facts
from llm_proxy.cli.text import count, duration, line, moment, money
from llm_proxy.config import AgentConfig
from llm_proxy.runs.effects import Effect
from llm_proxy.runs.status import Standing


def run_timeline(
    run: RunRow,
    agent: AgentConfig | None,
    steps: list[Step],
    stands: Standing | None = None,
    effects: tuple[Effect, ...] = (),
    beside: Sequence[Beside] = (),
) -> RenderableType:
    """The whole report of one run; `agent` is None where the config no longer has it.

    `stands` is whether it may go on, where that was read. Each of `effects` stands with what caused it, and
    what happened `beside` the calls between them.
    """
    caused, others = by_cause(steps, effects)
    entries: list[tuple[int, RenderableType]] = [
        (
            step.call.started_us,
            call_entry(step, number, run.started_us, effects=caused.get(step.call.id, ())),
        )
        for number, step in enumerate(steps, 1)
    ]
    entries += [(one.at_us, Group(one.told, Text())) for one in beside]
    entries.sort(key=lambda entry: entry[0])
    told = (Text.assemble(("reported  ", "dim"), effect_line(effect)) for effect in others)
    return Gutter(
        Group(
            _heading(run, agent, stands), Text(), *(entry for _, entry in entries), *told, _totals(run, steps)
        )
    )


def told_timeline(told: RunTold, agent: AgentConfig | None) -> RenderableType:
    """The same with all that stands around the run's calls: sub-runs, approvals, events."""
    return run_timeline(told.run, agent, told.steps, told.standing, told.effects, list(happened_beside(told)))


def _heading(run: RunRow, agent: AgentConfig | None, stands: Standing | None) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=10, no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for label, text in _facts(run, agent):
        grid.add_row(label, text)
    for label, text in standing_facts(stands) if stands else ():
        grid.add_row(label, text)
    title = Text.assemble(("Run ", "bold"), (line(run.run_id), "bold cyan"))
    if run.inferred:
        title.append("  (inferred: the caller named no run)", "dim")
    return Group(title, Gutter(grid, "  "))


def _facts(run: RunRow, agent: AgentConfig | None) -> Iterator[Row]:
    who = Text(line(run.agent_id), "bold")
    if run.team:
        who.append(f", team {line(run.team)}", "not bold")
    yield "agent", who
    if agent is None:
        yield "owner", Text("none: the config no longer has this agent", "yellow")
    elif agent.owner:
        yield "owner", Text(line(agent.owner))
    if run.user_id:
        yield "user", Text.assemble(line(run.user_id), ("  as the agent says", "dim"))
    if run.parent_run_id:
        yield "parent", _parent(run)
    yield "started", Text(moment(run.started_us))


def _parent(run: RunRow) -> Text:
    parent = Text(line(run.parent_run_id))
    whose = run.stored.parent_agent_id
    if not whose:
        parent.append("  a trace link: its spend is its own", "dim")
    elif whose != run.agent_id:
        parent.append(f" of agent {line(whose)}")
    return parent


def _totals(run: RunRow, steps: list[Step]) -> RenderableType:
    last = max((step.call.started_us + int((step.call.total_s or 0) * 1e6) for step in steps), default=0)
    took = duration(max(0, last - run.started_us) / 1e6) if steps else "no time"
    first = Text.assemble(
        ("● ", "bold"),
        (f"{count(run.calls, 'call')} in {took}", "bold"),
        f", {run.input_tokens:,} tokens in, {run.output_tokens:,} out, ",
        (money(run.cost_micro_usd), "bold cyan"),
    )
    lines = [first, *_verdict_totals(steps)]
    if run.refused or run.failed:
        lines.append(Text(f"  {count(run.refused, 'call')} refused, {run.failed:,} failed", "red"))
    if run.calls > len(steps):
        lines.append(Text(f"  {run.calls - len(steps):,} later calls are not shown: raise --limit", "yellow"))
    return Group(*lines)


def _verdict_totals(steps: list[Step]) -> Iterator[Text]:
    decisions = [decision for step in steps for decision in step.call.decisions]
    if not decisions:
        return
    denied = Counter(decision.rule for decision in decisions if decision.decision != "allow")
    text = Text(f"  {count(len(decisions), 'tool call')} proposed: ")
    text.append(f"{len(decisions) - denied.total():,} allowed", "green")
    if denied:
        rules = ", ".join(f"{line(rule)} × {n}" if n > 1 else line(rule) for rule, n in denied.items())
        text.append(", ").append(f"{denied.total():,} denied", "bold red").append(f" by {rules}")
    yield text
