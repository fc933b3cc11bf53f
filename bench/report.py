"""Showing results to a person: a table of ratios, start and memory, and one line per target."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bench.results import Cell, Export, Results, Startup, verdicts
from bench.workload import Reply


def show(results: Results, console: Console) -> None:
    machine = results.machine
    console.print(
        f"[bold]bench[/] · {machine.cores} cores · {machine.cpu} · Python {machine.python} · "
        f"Linux {machine.kernel} · store on {machine.store_filesystem} · "
        f"{results.rounds} rounds of {results.seconds:g} s · "
        f"took {results.took_s:.0f} s"
    )
    if machine.store_filesystem == "tmpfs":
        console.print(
            "[yellow]The store is on tmpfs: a sync costs nothing, so durability looks too cheap.[/]"
        )
    if machine.load_average > 1:
        console.print(
            f"[yellow]Something else was using the machine (load average {machine.load_average:.1f}): "
            "the figures suffer, ratios included.[/]"
        )
    console.print(_table(results.cells))
    if results.startup:
        _show_startup(results.startup, console)
    if results.export:
        _show_export(results.export, console)
    for verdict in verdicts(results.cells, results.startup, results.translation):
        word = "[green]met[/]    " if verdict.met else "[red]NOT met[/]"
        console.print(f"{word} {verdict.target}: [bold]{verdict.figure}[/]")
    for error in results.errors:
        console.print("error", error, style="red", markup=False)


def _table(cells: tuple[Cell, ...]) -> Table:
    table = Table(
        title="Medians over rounds; p50, p99, added in ms; CPU per request in µs; drain in s",
        title_justify="left",
    )
    table.add_column("connections × reply × prompt", no_wrap=True)
    for name in ("bare/s", "proxy/s", "ratio", "bare p50", "proxy p50", "added p50", "bare p99", "proxy p99"):
        table.add_column(name, justify="right")
    for name in ("bare ev/s", "proxy ev/s", "bare CPU", "proxy CPU", "drain"):
        table.add_column(name, justify="right")
    for cell in cells:
        table.add_row(cell.workload.name, *_columns(cell))
    return table


def _columns(cell: Cell) -> list[str]:
    bare, proxy = cell.bare, cell.proxy
    streamed = cell.workload.reply is not Reply.WHOLE
    return [
        _number(bare and bare.requests_per_s, 0),
        _number(proxy and proxy.requests_per_s, 0),
        "–" if cell.ratio is None else f"{cell.ratio:.1%}",
        _number(bare and bare.p50_ms, 2),
        _number(proxy and proxy.p50_ms, 2),
        _number(cell.added_p50_ms, 2),
        _number(bare and bare.p99_ms, 2),
        _number(proxy and proxy.p99_ms, 2),
        _number(bare and bare.events_per_s if streamed else None, 0),
        _number(proxy and proxy.events_per_s if streamed else None, 0),
        _number(bare and bare.cpu_us, 0),
        _number(proxy and proxy.cpu_us, 0),
        _number(proxy and proxy.drain_s, 1),
    ]


def _number(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}"


def _show_startup(startup: Startup, console: Console) -> None:
    ready = ", ".join(f"{seconds:.2f}" for seconds in startup.ready_s)
    console.print(f"ready after {ready} s")
    for when, used in (
        ("before the first call", startup.before_first_call),
        ("after the first counted call", startup.after_first_call),
        (f"after {startup.calls:,} calls", startup.after_calls),
    ):
        console.print(
            f"memory {when}: {used.rss_mb:.0f} MB RSS, {used.pss_mb:.0f} MB PSS, {used.processes} process(es)"
        )


def _show_export(export: Export, console: Console) -> None:
    console.print(
        f"export: {export.spans:,} spans for {export.calls:,} calls, {export.duplicates:,} repeated"
    )
