"""`llm-proxy agents`: who may call, with what, and what they did so far; freezes and thaws."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from llm_proxy.admin.agents import Reason
from llm_proxy.admin.reading import AgentLine, AgentShown, agent_lines, agent_shown
from llm_proxy.cli.change import changing
from llm_proxy.cli.gutter import Gutter
from llm_proxy.cli.keys import key_rows
from llm_proxy.cli.options import ConfigOption, JsonOption, LimitOption, ReasonOption, UrlOption
from llm_proxy.cli.output import Column, console, print_json, print_table
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import line, moment, money
from llm_proxy.records.ids import now_us

app = typer.Typer(help="The agents of the config, and what they did.", no_args_is_help=True)

_COLUMNS = (
    Column("agent", "bold"),
    Column("standing"),
    Column("team"),
    Column("owner"),
    Column("keys", right=True),
    Column("calls", right=True),
    Column("spend", "cyan", right=True),
    Column("last seen"),
)


@app.command("list")
def list_(config: ConfigOption = None, *, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """Every agent: its keys, calls and spend, and when it was last seen."""
    loaded = load(config)
    with reading(loaded) as connection:
        lines = agent_lines(loaded, connection, now_us(), limit)
    if as_json:
        print_json(lines)
    else:
        print_table(_COLUMNS, map(_row, lines), "The config has no agents.")


@app.command()
def show(
    agent: Annotated[str, typer.Argument(metavar="AGENT")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """One agent: what it may do, its keys, and what it did."""
    loaded = load(config)
    with reading(loaded) as connection:
        shown = agent_shown(loaded, connection, now_us(), agent)
    if as_json:
        print_json(shown)
        return
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, text in _facts(shown):
        grid.add_row(Text(name, "dim"), Text(line(text)))
    console().print(Gutter(grid))
    if shown.credentials:
        console().print()
        key_rows(list(shown.credentials))


@app.command()
def freeze(
    agent: Annotated[str, typer.Argument(metavar="AGENT")],
    reason: Annotated[str, typer.Option(help="Why; callers are told.", show_default=False)],
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Stop an agent: within a second its calls are refused, and its open ones have ended.

    Needs $LLM_PROXY_TOKEN: the token of an operator with role admin, or the admin token.
    """
    with changing(config, url) as change:
        standing = change.freeze(agent, Reason(reason=reason))
    if as_json:
        print_json(standing)
        return
    what = "is frozen" if standing.changed else "was frozen before: nothing has changed. It is so"
    typer.echo(
        f"Agent {standing.id} {what} since {moment(standing.since_us)} by {standing.by}: {standing.reason}"
    )


@app.command()
def thaw(
    agent: Annotated[str, typer.Argument(metavar="AGENT")],
    reason: ReasonOption = "",
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Let a frozen agent call again.

    Needs $LLM_PROXY_TOKEN: the token of an operator with role admin, or the admin token.
    """
    with changing(config, url) as change:
        standing = change.thaw(agent, Reason(reason=reason))
    if as_json:
        print_json(standing)
    else:
        typer.echo(f"Agent {agent} {'is thawed' if standing.changed else 'was not frozen'}.")


def _row(agent: AgentLine) -> list[str | Text]:
    return [
        agent.id if agent.configured else f"{agent.id} (not in the config)",
        Text("frozen", "red") if agent.frozen else "",
        agent.team,
        agent.owner,
        str(agent.keys),
        f"{agent.calls:,}",
        money(agent.cost_micro_usd),
        moment(agent.last_seen_us) or "never",
    ]


def _facts(agent: AgentShown) -> list[tuple[str, str]]:
    facts = [
        ("agent", agent.id if agent.configured else f"{agent.id}, which the config no longer has"),
        ("frozen", _frozen(agent)),
        ("owner", agent.owner),
        ("team", agent.team),
        ("role", agent.role),
        ("models", ", ".join(agent.models) or "none"),
        ("tools", ", ".join(agent.tools) or "none"),
        ("must name its run", "yes" if agent.require_run else "no"),
        *((f"scope {name}", ", ".join(values)) for name, values in agent.scopes.items()),
        ("calls", f"{agent.calls:,}, {agent.refused:,} of them refused"),
        ("spend", money(agent.cost_micro_usd)),
        ("last seen", moment(agent.last_seen_us) or "never"),
    ]
    return [(name, text) for name, text in facts if text]


def _frozen(agent: AgentLine) -> str:
    if not agent.frozen:
        return ""
    return f"since {moment(agent.frozen_us)} by {agent.frozen_by}: {agent.frozen_reason}"
