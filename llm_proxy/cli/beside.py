"""What happened in a run beside its calls, as lines of its timeline: sub-runs, approvals, events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.text import Text

from llm_proxy.admin.approval_lines import ApprovalLine
from llm_proxy.admin.run_told import RunTold
from llm_proxy.admin.shapes import ChildRun
from llm_proxy.cli.approvals import STYLES
from llm_proxy.cli.text import count, line, moment, money


class Beside(NamedTuple):
    at_us: int
    told: Text


def happened_beside(told: RunTold) -> Iterator[Beside]:
    """In no order."""
    yield from [Beside(child.started_us, _child(child)) for child in told.children]
    if told.more_children:
        text = f"only the first {len(told.children):,} runs that it started are told"
        yield Beside(told.children[-1].started_us, Text(text, "yellow"))
    if told.more_approvals:
        text = f"only the last {len(told.approvals):,} approvals are told"
        yield Beside(told.approvals[0].requested_us, Text(text, "yellow"))
    yield from [Beside(one.requested_us, _approval(one)) for one in told.approvals]
    for event in told.events:
        text = Text.assemble(("event     ", "dim"), (line(event.event), "bold"), f" by {line(event.by)}")
        yield Beside(event.at_us, text.append(f", {moment(event.at_us)}", "dim"))


def _child(child: ChildRun) -> Text:
    text = Text.assemble(("started   ", "dim"), "run ", (line(child.run_id), "bold cyan"))
    text.append(f" of agent {line(child.agent_id)}: {count(child.calls, 'call')}, ")
    text.append(money(child.cost_micro_usd), "cyan")
    if child.denials:
        text.append(f", {child.denials:,} denied", "red")
    if child.purpose:
        text.append(f"  {line(child.purpose)}", "dim")
    return text.append("  a trace link", "dim") if child.linked else text


def _approval(one: ApprovalLine) -> Text:
    text = Text.assemble(("approval  ", "dim"), (line(one.tool), "bold"), f" by rule {line(one.rule)}: ")
    text.append(one.status.value, STYLES[one.status])
    if one.approved_by:
        text.append(f" by {line(', '.join(one.approved_by))}")
    if one.decided_us is not None:
        text.append(f", {moment(one.decided_us)}", "dim")
    return text.append(f"  {one.id}", "dim")
