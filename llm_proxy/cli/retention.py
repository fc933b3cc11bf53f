"""`llm-proxy retention`: what is due to be deleted, and deleting it now."""

from __future__ import annotations

from typing import Annotated

import typer

from llm_proxy.admin.retention import DayLine, DeletedLine, DueLine, RetentionShown, shown
from llm_proxy.cli.change import changing
from llm_proxy.cli.options import ConfigOption, JsonOption, LimitOption, UrlOption
from llm_proxy.cli.output import Column, print_json, print_table, stop
from llm_proxy.cli.store import NO_RECORDS, load, reading
from llm_proxy.cli.text import moment
from llm_proxy.records.ids import now_us
from llm_proxy.retention.held import TooManyHeld

app = typer.Typer(help="How long content is kept, what is due, and what was deleted.", no_args_is_help=True)

_DUE = (
    Column("due day", "bold", whole=True),
    Column("pieces", right=True),
    Column("bytes", right=True),
    Column("held", right=True),
)
_DELETED = (
    Column("deleted day", "bold", whole=True),
    Column("pieces", right=True),
    Column("bytes", right=True),
    Column("held", right=True),
    Column("ended"),
)
_DONE = (*_DUE, Column("copy"))


@app.command()
def status(config: ConfigOption = None, *, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """How long content is kept, which days are due, what legal holds keep, and what was deleted."""
    told = _told(config, limit)
    if as_json:
        print_json(told)
        return
    typer.echo(
        f"Content is kept {told.content}, for {told.retention_days} days: from {told.kept_from} on. "
        f"The oldest is of {told.oldest or 'no day'}. "
        f"{told.holds:,} legal holds keep that of {told.held_runs:,} runs."
    )
    if told.due:
        print_table(_DUE, map(_due, told.due), "")
    if told.deleted:
        print_table(_DELETED, map(_deleted, told.deleted), "")


@app.command()
def run(
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete what is due now, and not at the next turn; ends when it's done.

    Needs $LLM_PROXY_TOKEN, but for --dry-run: the token of an operator with role admin, or the admin token.
    """
    if dry_run:
        due = _told(config, 100_000).due
        if as_json:
            print_json(due)
        else:
            print_table(_DUE, map(_due, due), "Nothing is due.")
        return
    with changing(config, url) as change:
        done = change.run_retention()
    if as_json:
        print_json(done)
    else:
        print_table(_DONE, map(_done, done.days), "Nothing was due.")


def _told(config: ConfigOption, limit: int) -> RetentionShown:
    loaded = load(config)
    with reading(loaded) as connection:
        if connection is None:
            stop(NO_RECORDS)
        try:
            return shown(loaded, connection, now_us(), limit)
        except TooManyHeld as error:
            stop(error)


def _due(line: DueLine) -> list[str]:
    return [line.day, f"{line.blobs:,}", f"{line.bytes:,}", f"{line.kept:,}"]


def _deleted(line: DeletedLine) -> list[str]:
    ended = moment(line.ended_us) if line.ended_us is not None else "under way"
    return [line.day, f"{line.blobs:,}", f"{line.bytes:,}", f"{line.kept:,}", ended]


def _done(line: DayLine) -> list[str]:
    return [line.day, f"{line.blobs:,}", f"{line.bytes:,}", f"{line.kept:,}", line.file]
