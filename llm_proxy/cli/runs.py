"""`llm-proxy runs`: what agents did, run by run; ends a run, and notes that a person looked at one."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from llm_proxy.admin.reading import find_run
from llm_proxy.admin.run_events import RunEventWish
from llm_proxy.admin.run_told import run_told
from llm_proxy.admin.runs import RunEnding, RunWish, run_lines
from llm_proxy.admin.shapes import RunLine
from llm_proxy.approving import CHECKPOINT
from llm_proxy.cli.change import changing
from llm_proxy.cli.committing import note_shown
from llm_proxy.cli.export import export
from llm_proxy.cli.options import (
    AgentOption,
    ConfigOption,
    JsonOption,
    LimitOption,
    RunArgument,
    UrlOption,
    only,
)
from llm_proxy.cli.output import NOT_FOUND, Column, complain, console, print_json, print_table, stop
from llm_proxy.cli.run_stands import STYLES
from llm_proxy.cli.search import catch_up
from llm_proxy.cli.store import NO_RECORDS, load, reading
from llm_proxy.cli.tail import tail
from llm_proxy.cli.text import line, moment, money
from llm_proxy.cli.timeline import told_timeline
from llm_proxy.records.ids import now_us
from llm_proxy.runs.status import RunStatus

app = typer.Typer(help="Runs: what agents did, and why.", no_args_is_help=True)

app.command()(tail)
app.command()(export)

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
    user: Annotated[str | None, only("--user", "USER", "On behalf of this user.")] = None,
    model: Annotated[str | None, only("--model", "MODEL", "With a call for this model.")] = None,
    tool: Annotated[str | None, only("--tool", "TOOL", "With a judged call of this tool.")] = None,
    decision: Annotated[
        str | None, only("--decision", "allow|deny|ask", "With such a verdict; ask: a person was asked.")
    ] = None,
    rule: Annotated[str | None, only("--rule", "RULE", "In which this rule of the policy spoke.")] = None,
    error: Annotated[str | None, only("--error", "KIND", "With a call that ended in this error.")] = None,
    since: Annotated[str | None, only("--since", "TIME", "Begun since: 24h, 7d, a date.")] = None,
    until: Annotated[str | None, only("--until", "TIME", "Begun before.")] = None,
    min_cost: Annotated[
        float | None,
        typer.Option("--min-cost", metavar="USD", min=0, help="That cost so much.", show_default=False),
    ] = None,
    ended: Annotated[bool, typer.Option("--ended", help="That were ended.")] = False,
    frozen: Annotated[bool, typer.Option("--frozen", help="Of frozen agents.")] = False,
    before: Annotated[
        str | None, only("--before", "US,RUN", "Go on behind a run: its started_us, and its id.")
    ] = None,
    words: Annotated[
        str | None, only("--words", "WORDS", "In which this was said, as calls search takes it; recorded.")
    ] = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Runs, the last begun first."""
    loaded = load(config)
    wish = RunWish(
        agent=agent,
        user=user,
        model=model,
        tool=tool,
        decision=decision,
        rule=rule,
        error=error,
        since=since,
        until=until,
        min_cost=min_cost,
        ended=ended,
        frozen=frozen,
        before=before,
        words=words,
    )
    if (rule, decision, words) != (None, None, None):
        catch_up(loaded)  # all three are asked of the search index
    with reading(loaded) as connection:
        lines: list[RunLine] = []
        if connection is not None:
            lines = run_lines(loaded, connection, now_us(), limit, wish)
    if words and connection is not None:
        note_shown(loaded, "runs list", words=words)
    if as_json:
        print_json(lines)
        return
    some = wish != RunWish()
    print_table(_COLUMNS, map(_row, lines), "No such runs." if some and connection else NO_RECORDS)
    if len(lines) == limit:
        complain(f"There may be more: go on with --before {lines[-1].started_us},{lines[-1].run_id}")


@app.command()
def show(
    run: RunArgument,
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
        told = run_told(loaded, connection, find_run(connection, run, agent), now_us(), limit)
    calls = [step.call.id for step in told.steps]
    note_shown(loaded, "runs show", calls=calls, run=told.run.stored.key)
    if as_json:
        print_json(told.shown())
    else:
        console().print(told_timeline(told, loaded.agents.get(told.run.agent_id)))


@app.command()
def end(
    run: RunArgument,
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
    run: RunArgument,
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
