"""`llm-proxy holds`: runs whose content stays, whatever its age."""

from __future__ import annotations

from typing import Annotated

import typer

from llm_proxy.admin.legal_holds import HoldLine, HoldShown, HoldWish, hold_lines
from llm_proxy.cli.change import changing
from llm_proxy.cli.options import (
    AgentOption,
    ConfigOption,
    JsonOption,
    LimitOption,
    ReasonOption,
    RunArgument,
    UrlOption,
)
from llm_proxy.cli.output import Column, print_json, print_table
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import line, moment

app = typer.Typer(help="Legal holds: runs whose content is not deleted.", no_args_is_help=True)

_HOLDS = (
    Column("run", "bold", whole=True),
    Column("agent", whole=True),
    Column("placed"),
    Column("by"),
    Column("released"),
    Column("reason"),
)


@app.command("list")
def list_(
    config: ConfigOption = None,
    *,
    released: Annotated[bool, typer.Option("--released", help="Also those that stand no more.")] = False,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Legal holds, the last placed first."""
    with reading(load(config)) as connection:
        lines = [] if connection is None else hold_lines(connection, limit, released=released)
    if as_json:
        print_json(lines)
    else:
        print_table(_HOLDS, map(_hold, lines), "No legal holds.")


@app.command()
def place(
    run: RunArgument,
    reason: ReasonOption,
    agent: AgentOption = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Keep the content of a run, and of the runs below it, until the hold is released.

    Needs $LLM_PROXY_TOKEN: the token of an operator with role admin, or the admin token.
    """
    with changing(config, url) as change:
        shown = change.place_hold(run, HoldWish(reason=reason, agent=agent))
    _say(shown, "is under legal hold since", shown.placed_us, as_json=as_json)


@app.command()
def release(
    run: RunArgument,
    reason: ReasonOption,
    agent: AgentOption = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Let the content of a run go again; what is due of it is deleted at the next turn.

    Needs $LLM_PROXY_TOKEN: the token of an operator with role admin, or the admin token.
    """
    with changing(config, url) as change:
        shown = change.release_hold(run, HoldWish(reason=reason, agent=agent))
    _say(shown, "is released since", shown.released_us, as_json=as_json)


def _say(shown: HoldShown, what: str, since_us: int | None, *, as_json: bool) -> None:
    if as_json:
        print_json(shown)
        return
    typer.echo(f"Run {line(shown.run_id)} of agent {shown.agent_id} {what} {moment(since_us)}.")
    if shown.days_deleted:
        typer.echo(f"Content of these days was deleted before: {', '.join(shown.days_deleted)}.")


def _hold(hold: HoldLine) -> list[str]:
    released = moment(hold.released_us) if hold.released_us is not None else ""
    return [hold.run_id, hold.agent_id, moment(hold.placed_us), hold.by, released, hold.reason]
