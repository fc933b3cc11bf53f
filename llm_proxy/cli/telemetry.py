"""`llm-proxy telemetry`: how far the export is, what a backend refused, and sending spans again."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.admin.errors import NotFound, Unclear
from llm_proxy.admin.telemetry import (
    DeadLetterLine,
    Replayed,
    ReplayWish,
    TelemetryStatus,
    replay,
    telemetry_status,
)
from llm_proxy.cli.options import AgentOption, ConfigOption, JsonOption, LimitOption
from llm_proxy.cli.output import NOT_FOUND, Column, complain, print_json, print_table, stop
from llm_proxy.cli.store import NO_RECORDS, load, place, reading, reason
from llm_proxy.cli.text import moment
from llm_proxy.records.engine import open_engine
from llm_proxy.records.ids import now_us

app = typer.Typer(help="The OTLP export: how far it is, and sending again.", no_args_is_help=True)

_LETTERS = (
    Column("dead letter", "bold", whole=True),
    Column("agent"),
    Column("run"),
    Column("since"),
    Column("refused with"),
)


@app.command()
def status(config: ConfigOption = None, *, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """How far the export is, and the spans that the backend would not take whole."""
    loaded = load(config)
    with reading(loaded) as connection:
        told = telemetry_status(loaded, connection, limit, now_us())
    if as_json:
        print_json(told)
        return
    for line in _summary(told):
        typer.echo(line)
    if told.dead_letters:
        print_table(_LETTERS, map(_letter, told.dead_letters), "")


@app.command("replay")
def replay_(
    run: Annotated[str | None, typer.Option(metavar="RUN", help="This run.", show_default=False)] = None,
    agent: AgentOption = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Calls that began since: 24h, 7d, a date.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    *,
    dead_letters: Annotated[
        bool, typer.Option("--dead-letters", help="Those that the backend refused, whole.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Send spans to the configured endpoint again, under the same ids.

    Exit status 1 where the backend refused some, or could not be reached for half a minute.
    """
    loaded = load(config)
    wish = ReplayWish(run=run, agent=agent, since=since, dead_letters=dead_letters)
    with reading(loaded) as connection:
        if connection is None:
            stop(NO_RECORDS, NOT_FOUND)
    engine = open_engine(loaded.store.get_secret_value())
    try:
        told = replay(loaded, engine, wish, now_us(), os.environ)
    except NotFound as error:
        stop(error, NOT_FOUND)
    except (Unclear, ValueError) as error:
        stop(error)
    except (SQLAlchemyError, OSError) as error:
        stop(f"The store {place(loaded)} can't be used: {reason(error)}")
    finally:
        engine.dispose()
    if as_json:
        print_json(told)
    else:
        _say(told)
    if not told.well:
        raise typer.Exit(NOT_FOUND)


def _summary(told: TelemetryStatus) -> list[str]:
    where = f"to {told.endpoint} ({told.protocol})" if told.endpoint else "off: no telemetry.otlp_endpoint"
    by = f", by writer {told.exporter}" if told.exporter else ""
    behind = f", the oldest for {told.lag_s:,.0f} s" if told.oldest_unsent_us is not None else ""
    return [
        f"export        {where}{by}",
        f"unsent        {told.unsent:,} records{behind}",
        f"dead letters  {told.dead_letter_count:,}",
    ]


def _letter(line: DeadLetterLine) -> list[str | Text]:
    return [line.id, line.agent_id, line.run_id, moment(line.at_us), line.reason]


def _say(told: Replayed) -> None:
    typer.echo(f"{told.spans:,} spans of {told.records:,} records were taken by {told.endpoint}.")
    for line in told.refused_spans:
        complain(f"refused: {line.span} of {line.id}: {line.reason}")
    if told.refused > len(told.refused_spans):
        complain(f"refused: {told.refused - len(told.refused_spans):,} more")
    if told.unsent:
        complain(f"The rest was not sent: {told.unsent}")
