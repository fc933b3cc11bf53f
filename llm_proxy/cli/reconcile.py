"""`llm-proxy reconcile`: whether records, calls, daily sums and the ledger agree, to the micro-dollar."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from llm_proxy.admin.reconciling import ReconcileShown, reconciled
from llm_proxy.cli.options import ConfigOption, JsonOption, LimitOption
from llm_proxy.cli.output import NOT_FOUND, Column, complain, console, print_json, print_table
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import count, money
from llm_proxy.records.ids import now_us
from llm_proxy.spend.reconcile import Progress as Told

_COLUMNS = (
    Column("book", "bold"),
    Column("where"),
    Column("what"),
    Column("should be", right=True),
    Column("is", "red", right=True),
)


def reconcile(
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only calls from that day on (24h, 7d, a date, in UTC), and not the ledger.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Compare the books to the micro-dollar: records, calls, daily sums, tools, and the ledger's counters.

    Exits with 1 where two of them disagree, and says where and by how much. It reads every record.
    """
    loaded = load(config)
    with reading(loaded) as connection, _progress() as told:
        found = reconciled(connection, since, now_us(), told)
    if as_json:
        print_json(found)
    else:
        _print(found, limit)
    if not found.balanced:
        raise typer.Exit(NOT_FOUND)


@contextmanager
def _progress() -> Generator[Told]:
    """A bar on a terminal, nothing in a pipe."""
    shown = Console(stderr=True, quiet=not sys.stderr.isatty())
    columns = (TextColumn("Comparing calls"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=shown, transient=True) as bar:
        task = bar.add_task("calls", total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)


def _print(found: ReconcileShown, limit: int) -> None:
    ledger = "" if found.counters is None else f", {count(found.counters, 'counter')} of the ledger"
    covered = (
        f"{count(found.calls, 'call')} on {count(found.days, 'day')}, {found.tokens:,} tokens, "
        f"{money(found.cost_micro_usd)}{ledger}; {count(found.open_calls, 'call')} in flight."
    )
    if found.balanced:
        console().print(Text.assemble(("In balance: ", "bold green"), covered), soft_wrap=True)
        return
    rows = ([d.book, d.where, d.what, _figure(d.expected), _figure(d.found)] for d in found.drifts[:limit])
    print_table(_COLUMNS, rows, "")
    shown = min(limit, len(found.drifts))
    more = f" ({found.drift_count - shown:,} more are not shown)" if found.drift_count > shown else ""
    complain(f"Not in balance: {count(found.drift_count, 'figure')} differ{more}. Compared: {covered}")


def _figure(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else value
