"""How the command line speaks: answers on standard output, complaints on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_proxy.admin.shown import pretty
from llm_proxy.cli.gutter import Gutter
from llm_proxy.cli.text import clean, line

NOT_FOUND = 1
"""Exit status where the answer is no, or there is no such thing."""
WRONG_USE = 2
"""Exit status for wrong usage, a wrong config, and a store or proxy that can't be used."""


def complain(what: object) -> None:
    """One line on standard error, as it is: no markup, so that file:line stays clickable."""
    print(clean(str(what)), file=sys.stderr)  # noqa: T201


def stop(what: object, status: int = WRONG_USE) -> NoReturn:
    """Complains and ends the command."""
    complain(what)
    raise typer.Exit(status)


_PIPE_WIDTH = 400
"""A pipe has no width: a listing in it has one line a row."""


def console() -> Console:
    """Standard output. Nothing that it prints is read as markup; colour and width follow the terminal."""
    return Console(highlight=False, markup=False, emoji=False)


def print_json(value: object) -> None:
    sys.stdout.write(f"{pretty(value)}\n")


class Column:
    """A column of a listing. `style` colours its cells; numbers go to the right."""

    def __init__(self, name: str, style: str = "", *, right: bool = False, whole: bool = False) -> None:
        """`whole`: ids, which are never cut and break only where nothing else helps."""
        self.name = name
        self.style = style
        self.right = right
        self.whole = whole


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]], none: str) -> None:
    """A listing for people; `none` is said where there are no rows."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(
            column.name,
            style=column.style,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=column.whole,
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(line(cell)) for cell in row))
    if table.row_count:
        out = console()
        if not out.is_terminal and "COLUMNS" not in os.environ:
            out.width = _PIPE_WIDTH
        out.print(Gutter(table))
    else:
        complain(none)
