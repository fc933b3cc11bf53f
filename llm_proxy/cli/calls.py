"""`llm-proxy calls`: single calls, in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from llm_proxy.admin.reading import find_call
from llm_proxy.admin.shown import call_line, call_shown
from llm_proxy.admin.story import Story
from llm_proxy.archive.listings import CallRow, list_calls
from llm_proxy.cli.committing import note_shown
from llm_proxy.cli.entry import WHOLE, call_entry
from llm_proxy.cli.gutter import Gutter
from llm_proxy.cli.options import AgentOption, ConfigOption, JsonOption, LimitOption, RunOption
from llm_proxy.cli.output import NOT_FOUND, Column, console, print_json, print_table, stop
from llm_proxy.cli.search import search
from llm_proxy.cli.store import NO_RECORDS, load, reading
from llm_proxy.cli.text import duration, line, moment, money
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.view import Attempt, CallView, Status

app = typer.Typer(help="Single calls.", no_args_is_help=True)
app.command()(search)

_COLUMNS = (
    Column("call", "bold", whole=True),
    Column("agent"),
    Column("started"),
    Column("model"),
    Column("status"),
    Column("cost", "cyan", right=True),
)


@app.command("list")
def list_(
    agent: AgentOption = None,
    run: RunOption = None,
    status: Annotated[Status | None, typer.Option(help="With this status only.")] = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Calls, the newest first."""
    with reading(load(config)) as connection:
        rows: list[CallRow] = []
        if connection is not None:
            rows = list_calls(connection, limit=limit, agent=agent, run=run, status=status)
    if as_json:
        print_json([call_line(row) for row in rows])
    else:
        print_table(_COLUMNS, map(_row, rows), NO_RECORDS)


@app.command()
def show(
    call: Annotated[str, typer.Argument(metavar="CALL")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Everything one call left. The ids are those of the reply's headers x-call-id and x-run-id."""
    loaded = load(config)
    with reading(loaded) as connection:
        if connection is None:
            stop(f"No call {call!r} is recorded: {NO_RECORDS.lower()}", NOT_FOUND)
        found = find_call(connection, call)
    note_shown(loaded, "calls show", calls=[found.id], run=RunKey(found.agent_id, found.run_id))
    if as_json:
        print_json(call_shown(found))
        return
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, text in _facts(found):
        grid.add_row(Text(name, "dim"), Text(line(text)))
    console().print(Group(Gutter(grid), Text(), call_entry(Story().tell(found), 1, found.started_us, WHOLE)))


def _row(call: CallRow) -> list[str]:
    status = f"{call.status} ({call.error})" if call.error else call.status
    return [call.id, call.agent_id, moment(call.started_us), call.model, status, money(call.cost_micro_usd)]


def _facts(call: CallView) -> Iterator[tuple[str, str]]:
    yield "call", call.id
    yield "run", f"{call.run_id} (inferred: the caller named none)" if call.run_inferred else call.run_id
    yield "agent", f"{call.agent_id}, by key {call.key_id}"
    for name, text in (
        ("parent run", call.parent_run_id),
        ("user", f"{call.user_id} (verified)" if call.user_verified else call.user_id),
        ("acting", " for ".join(call.actors)),
        ("tags", ", ".join(call.tags)),
        ("trace", call.traceparent),
        ("policy", call.policy[:12]),
        ("content", "kept with values masked" if call.masked else ""),
    ):
        if text:
            yield name, text
    yield "started", moment(call.started_us)
    tries = sorted(call.attempts, key=lambda attempt: attempt.started_s)
    for number, attempt in enumerate(tries, 1):
        yield f"attempt {number}", _attempt(attempt)
    if call.overhead_ms is not None:
        yield "proxy time", f"{call.overhead_ms:.1f} ms"


def _attempt(attempt: Attempt) -> str:
    took = duration(attempt.ended_s - attempt.started_s)
    outcome = ": ".join(filter(None, (attempt.failure, attempt.detail))) or "ok"
    if attempt.resumed:
        outcome += f" (continued at target {attempt.target})"
    key = f", API key {attempt.api_key}" if attempt.api_key else ""
    status = f", status {attempt.status}" if attempt.status else ""
    resumed = ", going on with a cut reply" if attempt.resumed else ""
    resumed += f", asked again ({attempt.replan}) after its calls were denied" if attempt.replan else ""
    return f"{attempt.target} ({attempt.provider} {attempt.model}){key}{resumed}, {took}{status}: {outcome}"
