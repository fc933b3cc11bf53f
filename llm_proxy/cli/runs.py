"""`llm-proxy runs`: what agents did, run by run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from llm_proxy.admin.reading import find_run, run_steps
from llm_proxy.admin.shown import run_line, run_shown
from llm_proxy.archive.listings import RunRow, list_runs
from llm_proxy.cli.options import AgentOption, ConfigOption, JsonOption, LimitOption
from llm_proxy.cli.output import NOT_FOUND, Column, console, print_json, print_table, stop
from llm_proxy.cli.store import NO_RECORDS, load, reading
from llm_proxy.cli.text import moment, money
from llm_proxy.cli.timeline import run_timeline

app = typer.Typer(help="Runs: what agents did, and why.", no_args_is_help=True)

_COLUMNS = (
    Column("run", "bold", whole=True),
    Column("agent"),
    Column("started"),
    Column("calls", right=True),
    Column("cost", "cyan", right=True),
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
    with reading(load(config)) as connection:
        rows = list_runs(connection, limit=limit, agent=agent) if connection is not None else []
    if as_json:
        print_json([run_line(row) for row in rows])
    else:
        print_table(_COLUMNS, map(_row, rows), NO_RECORDS)


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
        steps = run_steps(connection, found, limit)
    if as_json:
        print_json(run_shown(found, steps))
    else:
        console().print(run_timeline(found, loaded.agents.get(found.agent_id), steps))


def _row(run: RunRow) -> list[str | Text]:
    cells = (run.run_id, run.agent_id, moment(run.started_us), f"{run.calls:,}", money(run.cost_micro_usd))
    return [*cells, _notable(run)]


def _notable(run: RunRow) -> Text:
    counted = (
        (run.denials, "denied", "red"),
        (run.refused, "refused", "red"),
        (run.failed, "failed", "red"),
        (run.open, "open", "cyan"),
    )
    return Text(", ").join(Text(f"{number:,} {word}", style) for number, word, style in counted if number)
