"""`llm-proxy runs`: what agents did, run by run; ends a run, and notes that a person looked at one."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from llm_proxy.admin.reading import find_run, run_steps
from llm_proxy.admin.run_events import RunEventWish
from llm_proxy.admin.runs import RunEnding, run_lines, stands
from llm_proxy.admin.shapes import RunLine
from llm_proxy.admin.shown import run_shown
from llm_proxy.approving import CHECKPOINT
from llm_proxy.cli.change import changing
from llm_proxy.cli.options import AgentOption, ConfigOption, JsonOption, LimitOption, UrlOption
from llm_proxy.cli.output import NOT_FOUND, Column, console, print_json, print_table, stop
from llm_proxy.cli.run_stands import STYLES
from llm_proxy.cli.store import NO_RECORDS, load, reading
from llm_proxy.cli.text import line, moment, money
from llm_proxy.cli.timeline import run_timeline
from llm_proxy.records.ids import now_us
from llm_proxy.runs.effects import effects_of
from llm_proxy.runs.status import RunStatus

app = typer.Typer(help="Runs: what agents did, and why.", no_args_is_help=True)

_COLUMNS = (
    Column("run", "bold", whole=True),
    Column("agent"),
    Column("started"),
    Column("calls", right=True),
    Column("cost", "cyan", right=True),
    Column("status"),
    Column("purpose"),
    Column("notable"),
)


@app.command("list")
def list_(
    agent: AgentOption = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Runs, the last begun first."""
    loaded = load(config)
    with reading(loaded) as connection:
        lines: list[RunLine] = []
        if connection is not None:
            lines = run_lines(loaded, connection, now_us(), limit, agent=agent)
    if as_json:
        print_json(lines)
    else:
        print_table(_COLUMNS, map(_row, lines), NO_RECORDS)


@app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="RUN")],
    agent: AgentOption = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """A run as a timeline: what came in, what the model thought, said and wanted, and how it was judged."""
    loaded = load(config)
    with reading(loaded) as connection:
        if connection is None:
            stop(f"No run {run!r} is recorded: {NO_RECORDS.lower()}", NOT_FOUND)
        found = find_run(connection, run, agent)
        standing = stands(loaded, connection, found, now_us())
        steps = run_steps(connection, found, limit)
        effects = effects_of(connection, found.stored.key)
    if as_json:
        print_json(run_shown(found, standing, steps, effects))
    else:
        console().print(run_timeline(found, loaded.agents.get(found.agent_id), steps, standing, effects))


@app.command()
def end(
    run: Annotated[str, typer.Argument(metavar="RUN")],
    why: Annotated[str, typer.Option(help="Why; callers are told.", show_default=False)],
    agent: AgentOption = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """End a run and the runs below it: within a second their calls are refused, and open ones have ended.

    Needs $LLM_PROXY_TOKEN: the token of an operator with role admin, or the admin token.
    """
    with changing(config, url) as change:
        ended = change.end_run(run, RunEnding(why=why, agent=agent))
    if as_json:
        print_json(ended)
    else:
        typer.echo(f"Run {ended.run_id} of agent {ended.agent_id} is ended since {moment(ended.ended_us)}.")


@app.command()
def checkpoint(
    run: Annotated[str, typer.Argument(metavar="RUN")],
    reason: Annotated[str, typer.Option(help="What was looked at, for the record.", show_default=False)],
    agent: AgentOption = None,
    event: Annotated[
        str, typer.Option(metavar="EVENT", help="The event's name, as the policy requires it.")
    ] = CHECKPOINT,
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Say that a person looked at a run, for rules that require it (`require: {event: …}`).

    Needs $LLM_PROXY_TOKEN: the token of an operator with role approver or admin, or the admin token.
    """
    with changing(config, url) as change:
        shown = change.report_event(run, RunEventWish(reason=reason, event=event, agent=agent))
    if as_json:
        print_json(shown)
    else:
        typer.echo(
            f"{shown.event} is on record for run {shown.run_id} of agent {shown.agent_id} "
            f"since {moment(shown.at_us)}."
        )


def _row(run: RunLine) -> list[str | Text]:
    cells = (run.run_id, run.agent_id, moment(run.started_us), f"{run.calls:,}", money(run.cost_micro_usd))
    status = Text(run.status.value, STYLES[run.status]) if _bound(run) else Text()
    return [*cells, status, line(run.purpose), _notable(run)]


def _bound(run: RunLine) -> bool:
    """Whether its status says anything: a run that nobody opened stays open unless something befalls it."""
    return run.envelope is not None or run.status is not RunStatus.OPEN


def _notable(run: RunLine) -> Text:
    counted = (
        (run.denials, "denied", "red"),
        (run.refused, "refused", "red"),
        (run.failed, "failed", "red"),
        (run.open, "open", "cyan"),
    )
    return Text(", ").join(Text(f"{number:,} {word}", style) for number, word, style in counted if number)
