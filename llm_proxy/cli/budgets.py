"""`llm-proxy budgets`: how much of each budget is used, held and left, and when it starts afresh."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from llm_proxy.admin.budgets import BudgetFilter, BudgetLine, budget_lines
from llm_proxy.cli.options import AgentOption, ConfigOption, JsonOption, LimitOption
from llm_proxy.cli.output import Column, complain, print_json, print_table
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import moment, money
from llm_proxy.records.ids import now_us

_COLUMNS = (
    Column("budget", "bold"),
    Column("counts"),
    Column("window"),
    Column("unit"),
    Column("used", right=True),
    Column("held", right=True),
    Column("left", "cyan", right=True),
    Column("of", right=True),
    Column("%", right=True),
    Column("resets"),
)
_WHO = ("agent", "team", "user", "key", "model", "tag", "run")


def budgets(
    agent: AgentOption = None,
    user: Annotated[
        str | None, typer.Option(metavar="USER", help="What counts this user only.", show_default=False)
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="The limits over this run too.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Every budget, for everyone whom it counts now; those nearest to their end first.

    Budgets over a run are shown with --run; envelopes that runs were opened with always.
    """
    loaded = load(config)
    wanted = BudgetFilter(agent=agent, user=user, run=run)
    with reading(loaded) as connection:
        lines = budget_lines(loaded, connection, now_us(), limit, wanted)
    if as_json:
        print_json(lines)
        return
    print_table(_COLUMNS, map(_row, lines), "No budget is set for that.")
    over_runs = [budget.id for budget in loaded.budgets if budget.window == "run"]
    if over_runs and run is None and user is None:
        complain(f"Over a run each, with --run RUN: {', '.join(over_runs)}.")


def _row(line: BudgetLine) -> list[str | Text]:
    who = ", ".join(f"{name} {value}" for name in _WHO if (value := getattr(line, name)))
    style = (
        "bold red" if line.percent >= 100 else "yellow" if line.percent >= 100 * (line.warn_at or 1) else ""
    )
    amounts = [_amount(line, figure) for figure in (line.used, line.held, line.left, line.maximum)]
    resets = moment(line.resets_us) if line.resets_us is not None else "never"
    return [
        line.budget,
        who or "everyone",
        line.window,
        line.unit,
        *amounts,
        Text(f"{line.percent:g}", style),
        resets,
    ]


def _amount(line: BudgetLine, figure: float) -> str:
    return money(round(figure * 1e6)) if line.unit == "usd" else f"{figure:,}"
