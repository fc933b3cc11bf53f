"""`llm-proxy approvals`: what waits for a person, what exactly would run, and a person's word on it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from llm_proxy.admin.approvals import (
    ApprovalLine,
    ApprovalShown,
    ApprovalWord,
    VoteShown,
    Wanted,
    approval_lines,
    approval_shown,
)
from llm_proxy.admin.arguments import caution, readable
from llm_proxy.approving import Word
from llm_proxy.archive.approvals import ApprovalFilter
from llm_proxy.cli.change import changing
from llm_proxy.cli.committing import note_shown
from llm_proxy.cli.gutter import Gutter
from llm_proxy.cli.options import (
    AgentOption,
    ConfigOption,
    JsonOption,
    LimitOption,
    ReasonOption,
    RunOption,
    UrlOption,
)
from llm_proxy.cli.output import Column, console, print_json, print_table
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import clean, count, duration, line, moment
from llm_proxy.records.approvals import ApprovalStatus
from llm_proxy.records.ids import now_us
from llm_proxy.records.runstate import RunKey

app = typer.Typer(help="Tool calls that wait for a person, and the person's word.", no_args_is_help=True)

_COLUMNS = (
    Column("approval", "bold", whole=True),
    Column("status"),
    Column("agent"),
    Column("tool"),
    Column("effect"),
    Column("risk"),
    Column("rule"),
    Column("approved", right=True),
    Column("asked"),
    Column("expires"),
)
STYLES = {
    ApprovalStatus.PENDING: "yellow",
    ApprovalStatus.APPROVED: "green",
    ApprovalStatus.DENIED: "red",
    ApprovalStatus.EXPIRED: "dim",
}
ApprovalArgument = Annotated[str, typer.Argument(metavar="APPROVAL")]


@app.command("list")
def list_(
    status: Annotated[Wanted, typer.Option(help="Only these, or all.")] = Wanted.PENDING,
    agent: AgentOption = None,
    run: RunOption = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """What waits for a person, the newest first; with --status, what was decided."""
    wanted = ApprovalFilter(status=status.status, agent=agent, run=run)
    with reading(load(config)) as connection:
        lines = approval_lines(connection, now_us(), limit, wanted)
    if as_json:
        print_json(lines)
    else:
        none = "Nothing waits for a person." if status is Wanted.PENDING else "No such approvals."
        print_table(_COLUMNS, map(_row, lines), none)


@app.command()
def show(approval: ApprovalArgument, config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """One approval: exactly what would run, which rule asks, who may decide, and who did."""
    loaded = load(config)
    with reading(loaded) as connection:
        shown = approval_shown(loaded, connection, now_us(), approval)
    run = RunKey(shown.agent_id, shown.run_id)
    note_shown(loaded, "approvals show", calls=[shown.call_id], run=run, approval=shown.id)
    if as_json:
        print_json(shown)
        return
    out = console()
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, text in _facts(shown):
        grid.add_row(Text(name, "dim"), Text(line(text)))
    out.print(Gutter(grid))
    out.print()
    out.print(Text(clean(readable(shown.arguments))), soft_wrap=True)
    if warning := caution(shown.arguments):
        out.print(Text(warning, "yellow"))


@app.command()
def approve(
    approval: ApprovalArgument,
    reason: ReasonOption = "",
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Let exactly this action run. Only those whom the policy names may, and never on their own request.

    Needs $LLM_PROXY_TOKEN: the token of an operator with role approver or admin, or the admin token.
    """
    with changing(config, url) as change:
        shown = change.decide(approval, "approve", ApprovalWord(reason=reason))
    _tell(shown, "approve", as_json=as_json)


@app.command()
def deny(
    approval: ApprovalArgument,
    reason: ReasonOption = "",
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Let an action not run: one person's word is enough.

    Needs $LLM_PROXY_TOKEN: the token of an operator with role approver or admin, or the admin token.
    """
    with changing(config, url) as change:
        shown = change.decide(approval, "deny", ApprovalWord(reason=reason))
    _tell(shown, "deny", as_json=as_json)


def _tell(shown: ApprovalShown, word: Word, *, as_json: bool) -> None:
    if as_json:
        print_json(shown)
    elif shown.status is ApprovalStatus.PENDING:
        missing = shown.quorum - len(shown.approved_by)
        typer.echo(f"Your word is on record. {shown.id} takes {count(missing, 'more approval')}.")
    elif word == "approve":
        typer.echo(
            f"{shown.id} is {shown.status}: {line(shown.tool)} may run until {moment(shown.valid_until_us)}."
        )
    else:
        typer.echo(f"{shown.id} is {shown.status}: {line(shown.tool)} will not run.")


def _row(one: ApprovalLine) -> list[str | Text]:
    return [
        one.id,
        Text(one.status, STYLES[one.status]),
        one.agent_id,
        one.tool,
        one.effect,
        one.risk,
        one.rule,
        f"{len(one.approved_by)} of {one.quorum}",
        moment(one.requested_us),
        moment(one.expires_us),
    ]


def _facts(shown: ApprovalShown) -> list[tuple[str, str]]:
    may = ", ".join(shown.may_approve) or "nobody of the config"
    grant = f"{count(shown.uses, 'use')} within {duration(shown.valid_us / 1e6)}"
    until = f", until {moment(shown.valid_until_us)}" if shown.valid_until_us else ""
    facts = [
        ("approval", shown.id),
        ("status", shown.status),
        ("agent", shown.agent_id),
        ("user", shown.user_id),
        ("run", shown.run_id),
        ("call", shown.call_id),
        ("tool", f"{shown.tool}{f', of {shown.owner}' if shown.owner else ''}"),
        ("effect", f"{shown.effect}, risk {shown.risk}"),
        ("rule", shown.rule),
        ("why", shown.why),
        ("digest", shown.digest),
        ("approvers", f"{', '.join(shown.approvers)} ({may})"),
        ("approved", f"{len(shown.approved_by)} of {shown.quorum}"),
        *(("vote", _vote(vote)) for vote in shown.votes),
        ("grant", f"{grant}; used {shown.used}{until}"),
        ("asked", moment(shown.requested_us)),
        ("expires", moment(shown.expires_us)),
        ("decided", moment(shown.decided_us)),
    ]
    return [(name, text) for name, text in facts if text]


def _vote(vote: VoteShown) -> str:
    why = f": {vote.reason}" if vote.reason else ""
    return f"{vote.operator} says {vote.decision}, {moment(vote.at_us)}, by {vote.via}{why}"
