"""`llm-proxy audit`: is the evidence whole; what signs it; and taking it away with the proof."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text
from sqlalchemy import Connection

from llm_proxy import wiring
from llm_proxy.admin import audit as audits
from llm_proxy.admin.errors import Unclear
from llm_proxy.audit.export import CannotExport, Order, export
from llm_proxy.audit.exported import BadExport, verify_export
from llm_proxy.audit.findings import Report
from llm_proxy.audit.listing import CheckpointLine, checkpoint_lines
from llm_proxy.audit.readings import ReadingLine, reading_lines
from llm_proxy.audit.source import Source
from llm_proxy.audit.verify import Progress
from llm_proxy.cli.committing import note_reading
from llm_proxy.cli.newfile import new_file
from llm_proxy.cli.options import AgentOption, ConfigOption, JsonOption, LimitOption, RunOption
from llm_proxy.cli.output import NOT_FOUND, Column, complain, print_json, print_table, stop
from llm_proxy.cli.store import NO_RECORDS, load, reading
from llm_proxy.cli.text import count, line, moment
from llm_proxy.config import Config
from llm_proxy.records.content_reads import Place, at_command_line
from llm_proxy.records.ids import now_us

app = typer.Typer(help="The evidence: is it whole, and what proves it.", no_args_is_help=True)

_CHECKPOINTS = (
    Column("checkpoint", "bold", whole=True),
    Column("when"),
    Column("chains", right=True),
    Column("key"),
    Column("hash", whole=True),
)
_READINGS = (
    Column("reading", "bold", whole=True),
    Column("when"),
    Column("who"),
    Column("by"),
    Column("what"),
    Column("of"),
    Column("calls", right=True),
)
_FINDINGS = (Column("what", "bold red"), Column("table"), Column("row", whole=True), Column("why"))
KeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="FILE|KID",
        help="A public key that checkpoints may be signed with: PEM, JWK or JWK set; else the proxy's own.",
        show_default=False,
    ),
]
FileOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="EXPORT", help="Verify this export, with no store.", show_default=False),
]
AgainstOption = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="EXPORT",
        help="An export with checkpoints that was kept elsewhere: the store must have all that they sign.",
        show_default=False,
    ),
]


@app.command("verify")
def verify_(
    file: FileOption = None,
    key: KeyOption = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="CHECKPOINT", help="Only what came after it.", show_default=False),
    ] = None,
    against: AgainstOption = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Verify every chain, checkpoint and row of content; name each that was changed or is missing.

    Exit status 0: intact; 1: it isn't; 2: it can't be verified.
    """
    with _progress() as told:
        if file is not None:
            if since is not None or against is not None:
                stop("--since and --against are about a store: leave them out with --file.")
            report = _of_file(file, key or [], limit, told)
        else:
            report = _of_store(load(config), key or [], since, against, limit, told)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report.intact:
        raise typer.Exit(NOT_FOUND)


@app.command("checkpoints")
def checkpoints_(
    config: ConfigOption = None, *, limit: LimitOption = 50, as_json: JsonOption = False
) -> None:
    """The signed checkpoints, the newest first."""
    with reading(load(config)) as connection:
        found = checkpoint_lines(connection, limit) if connection is not None else []
    if as_json:
        print_json(found)
    else:
        print_table(_CHECKPOINTS, map(_checkpoint, found), "No checkpoints yet.")


@app.command("readings")
def readings_(
    before: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Those before this one, of an earlier listing.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Who was shown prompts, replies or arguments, the newest first."""
    with reading(load(config)) as connection:
        try:
            found = reading_lines(connection, limit, before) if connection is not None else []
        except ValueError as error:
            stop(str(error))
    if as_json:
        print_json(found)
    else:
        print_table(_READINGS, map(_reading, found), "Nobody was shown content yet.")


@app.command("export")
def export_(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="A file that isn't there yet.")
    ],
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Records since: 24h, 7d, a date.", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Records before.", show_default=False)
    ] = None,
    agent: AgentOption = None,
    run: RunOption = None,
    config: ConfigOption = None,
    *,
    content: Annotated[bool, typer.Option("--content", help="With what was said; that is recorded.")] = False,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Nothing but the checkpoints, to be kept elsewhere.")
    ] = False,
) -> None:
    """Write records as JSON Lines, with what it takes to verify them without the store."""
    loaded = load(config)
    with reading(loaded) as connection:
        if connection is None:
            stop(NO_RECORDS, NOT_FOUND)
        now = now_us()
        wish = audits.wanted(since, until, agent, run, now, checkpoints=checkpoints)
        order = Order(at_command_line(), wish, content, audits.own_key(wiring.key_path(loaded)), now)
        _write(loaded, connection, order, output)


def _write(config: Config, connection: Connection, order: Order, output: Path) -> None:
    """Recorded first, but not where the file can't be made."""
    source = Source(connection)
    number = 0
    try:
        with new_file(output) as file, _progress() as told:
            note_reading(config, *audits.told(order, Place.CLI, source.count()))
            for raw in export(source, order):
                number += 1
                file.write(raw)
                if number % 500 == 0:
                    told("lines", number, 0)
    except CannotExport as error:
        stop(error, NOT_FOUND)
    typer.echo(f"{number:,} lines are in {output}. `llm-proxy audit verify --file {output}` verifies them.")
    if order.key is None:
        complain("There is no signing key, so the export isn't signed.")


def _of_store(
    config: Config, given: list[str], since: str | None, against: Path | None, limit: int, told: Progress
) -> Report:
    with reading(config) as connection:
        keys = audits.keys_of(given, wiring.key_path(config))
        if not keys and connection is not None and checkpoint_lines(connection, 1):
            stop(
                f"The checkpoints can't be checked: there is no key in {wiring.key_path(config)}. "
                "Give its public half with --key."
            )
        return audits.verified(connection, keys, limit, told, since=since, against=against)


def _of_file(file: Path, given: list[str], limit: int, told: Progress) -> Report:
    try:
        keys = audits.keys_of(given, Path()) if given else None
        return verify_export(file, keys, limit, told)
    except (BadExport, Unclear) as error:
        stop(error)
    except OSError as error:
        stop(f"{file}: can't be read: {error.strerror or error}")


@contextmanager
def _progress() -> Generator[Progress]:
    """A bar on a terminal, nothing in a pipe."""
    shown = Console(stderr=True, quiet=not sys.stderr.isatty())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=shown, transient=True) as bar:
        task = bar.add_task("Reading", total=None)
        yield lambda what, done, whole: bar.update(
            task, description=f"Reading {what}", completed=done, total=whole or None
        )


def _print(report: Report) -> None:
    if report.findings:
        rows = [
            [Text(str(f.what)), f.table, f.row, _why(f.kind, f.call_id, f.message)] for f in report.findings
        ]
        print_table(_FINDINGS, rows, "")
    if report.found > len(report.findings):
        complain(f"and {report.found - len(report.findings):,} more: --limit shows them.")
    for note_ in report.notes:
        complain(f"Note: {note_}.")
    state = "Intact" if report.intact else f"NOT INTACT, {count(report.found, 'finding')}"
    parts = [
        count(report.writers, "chain"),
        count(report.records, "record"),
        count(report.contents, "content"),
        *([f"{report.deleted:,} deleted by retention"] if report.deleted else []),
        count(report.checkpoints, "checkpoint"),
    ]
    typer.echo(f"{state}: {', '.join(parts)}; {_signed(report)}")


def _signed(report: Report) -> str:
    if report.newest_checkpoint_us is None:
        return "nothing is signed."
    after = count(report.unsigned, "record")
    return f"the last of them {moment(report.newest_checkpoint_us)}, and {after} behind what is signed."


def _why(kind: str, call_id: str, message: str) -> str:
    about = ", ".join(filter(None, [line(kind), f"call {line(call_id)}" if call_id else ""]))
    return f"{about}: {message}" if about else message


def _reading(found: ReadingLine) -> list[str | Text]:
    what = f"{found.what}: {found.words}" if found.words else found.what
    of = f"run {found.run_id}" if found.run_id else found.approval
    return [found.id, moment(found.at_us), found.by, found.place, what, of, f"{found.call_count:,}"]


def _checkpoint(found: CheckpointLine) -> list[str | Text]:
    return [found.id, moment(found.at_us), f"{len(found.heads):,}", found.key[:12], found.hash]
