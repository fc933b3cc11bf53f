"""`llm-proxy runs export`: everything of a run, to take away."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from llm_proxy.admin.reading import find_run
from llm_proxy.admin.run_export import calls_of, export_lines, run_tree
from llm_proxy.cli.committing import note_shown
from llm_proxy.cli.newfile import new_file
from llm_proxy.cli.options import AgentOption, ConfigOption, RunArgument
from llm_proxy.cli.output import NOT_FOUND, complain, stop
from llm_proxy.cli.store import NO_RECORDS, load, reading
from llm_proxy.records.ids import now_us


def export(
    run: RunArgument,
    agent: AgentOption = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Else standard output.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    *,
    content: Annotated[
        bool, typer.Option("--content", help="With prompts, replies and arguments; that is recorded.")
    ] = False,
    children: Annotated[bool, typer.Option("--children", help="With the runs below it.")] = False,
) -> None:
    """Everything of a run as JSON Lines: calls, verdicts, approvals, effects, records with their hashes.

    With --content it can be read, and served again, without the store.
    """
    loaded = load(config)
    with reading(loaded) as connection:
        if connection is None:
            stop(f"No run {run!r} is recorded: {NO_RECORDS.lower()}", NOT_FOUND)
        root = find_run(connection, run, agent).stored.key
        tree = run_tree(connection, root) if children else [root]
        if content:
            calls = [id_ for one in tree for id_ in calls_of(connection, one)]
            note_shown(loaded, "runs export", calls=calls, run=None if len(tree) > 1 else root)
        lines = export_lines(lambda: nullcontext(connection), loaded, tree, now_us(), content=content)
        if out is None:
            _write(sys.stdout.buffer, lines)
            return
        with new_file(out) as file:
            count = _write(file, lines)
    complain(f"{count:,} lines are in {out}.")


def _write(file: BinaryIO, lines: Iterator[bytes]) -> int:
    count = 0
    for line in lines:
        file.write(line)
        count += 1
    file.flush()
    return count
