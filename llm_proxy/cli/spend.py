"""`llm-proxy spend`: what agents spent, grouped as FinOps ask, as a table, JSON, CSV or FOCUS."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.text import Text

from llm_proxy.admin.spend import LINES, SpendFormat, Spent, Wish, focus_csv, spend_csv, spend_shown, spent
from llm_proxy.cli.options import AgentOption, ConfigOption, JsonOption
from llm_proxy.cli.output import Column, complain, console, print_json, print_table
from llm_proxy.cli.store import NO_RECORDS, load, reading
from llm_proxy.cli.text import count, money
from llm_proxy.records.ids import now_us
from llm_proxy.records.times import iso
from llm_proxy.spend.question import Filters, Question
from llm_proxy.spend.sums import Sums


def _filter(what: str, metavar: str) -> typer.models.OptionInfo:
    return typer.Option(metavar=metavar, help=f"Of this {what} only.", show_default=False)


def spend(
    by: Annotated[
        str | None,
        typer.Option(
            metavar="GROUPS",
            help="agent (unless told), team, user, run, model, target, provider, tag, tag:KEY, tool, day, "
            "week or month; several with commas between.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Calls from then on: 24h, 7d, a date or an ISO 8601 time, in UTC."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Calls before then.")] = None,
    agent: AgentOption = None,
    team: Annotated[str | None, _filter("team", "TEAM")] = None,
    user: Annotated[str | None, _filter("user", "USER")] = None,
    run: Annotated[str | None, _filter("run", "RUN")] = None,
    model: Annotated[str | None, _filter("model", "MODEL")] = None,
    target: Annotated[str | None, _filter("target", "TARGET")] = None,
    provider: Annotated[str | None, _filter("provider", "PROVIDER")] = None,
    tag: Annotated[str | None, _filter("whole tag", "TAG")] = None,
    format_: Annotated[
        SpendFormat, typer.Option("--format", help="What to print; csv and focus print every row.")
    ] = SpendFormat.TABLE,
    config: ConfigOption = None,
    *,
    compare: Annotated[
        bool, typer.Option("--compare", help="Beside each cost that of the equal time before --since.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, metavar="N", help=f"Show at most N rows ({LINES} unless told)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What was spent, by whatever you ask; every grouping adds up to the same total, to the micro-dollar."""
    where = Filters(
        agent=agent, team=team, user=user, run=run, model=model, target=target, provider=provider, tag=tag
    )
    wish = Wish(by=by, since=since, until=until, where=where, compare=compare, limit=limit)
    loaded, now = load(config), now_us()
    with reading(loaded) as connection:
        if format_ is SpendFormat.FOCUS and not as_json:
            _print_lines(focus_csv(connection, wish, loaded.server.environment, now))
            return
        found = spent(connection, wish, now)
    if as_json or format_ is SpendFormat.JSON:
        print_json(spend_shown(found, limit))
    elif format_ is SpendFormat.CSV:
        _print_lines(spend_csv(found, limit))
    else:
        _print(found, LINES if limit is None else limit)


def _print_lines(lines: Iterable[str]) -> None:
    for some in lines:
        sys.stdout.write(some)


def _print(found: Spent, limit: int) -> None:
    question, rows = found.told.question, found.rows()
    if not rows:
        complain(NO_RECORDS if question.since_us is None else "Nothing was spent in that time.")
        return
    compares, total = found.before is not None, found.told.total
    lines = [
        [
            *map(_group, row.key),
            *_cells(question, row.sums, (found.before or {}).get(row.key, Sums()), compares=compares),
        ]
        for row in rows[:limit]
    ]
    cells = _cells(question, total, found.total_before, compares=compares)
    lines.append([Text("total", "bold"), *[""] * (len(question.by) - 1), *cells])
    print_table(_columns(question, compares=compares), lines, NO_RECORDS)
    for note in _notes(found, len(rows) - limit):
        console().print(Text(note, "dim"), soft_wrap=True)


def _group(value: str) -> str | Text:
    """Calls without a user, a tag or a tool are a group too."""
    return value or Text("–", "dim")


def _columns(question: Question, *, compares: bool) -> list[Column]:
    numbers = ["requests", "refused", "failed", "retried"]
    numbers += ["tool calls", "denied"] if question.by_tool else []
    numbers += ["input", "output"]
    found = [Column(group, "bold" if at == 0 else "") for at, group in enumerate(question.by)]
    found += [Column(name, right=True) for name in numbers]
    found.append(Column("cost", "cyan", right=True))
    return [*found, Column("before", right=True), Column("change", right=True)] if compares else found


def _cells(question: Question, sums: Sums, then: Sums, *, compares: bool) -> list[str | Text]:
    names = ["requests", "refused", "failed", "retried"]
    names += ["tool_calls", "denied"] if question.by_tool else []
    cells: list[str | Text] = [f"{sums[name]:,}" for name in (*names, "input_tokens", "output_tokens")]
    cells.append(money(sums["micro_usd"]))
    if not compares:
        return cells
    change, was = sums["micro_usd"] - then["micro_usd"], then["micro_usd"]
    percent = f" ({change / was:+.0%})" if was else ""
    return [*cells, money(was), f"{'+' if change > 0 else ''}{money(change)}{percent}"]


def _notes(found: Spent, left_out: int) -> list[str]:
    """What the figures don't say by themselves."""
    question, total = found.told.question, found.told.total
    notes: list[str] = []
    if left_out > 0:
        notes.append(f"{count(left_out, 'row')} more, which --limit shows; the total has them too.")
    if question.since_us is not None or question.until_us is not None:
        since = "the beginning" if question.since_us is None else iso(question.since_us)
        until = "now" if question.until_us is None else iso(question.until_us)
        notes.append(f"From {since} to {until}.")
    if lost := total["lost_micro_usd"]:
        notes.append(f"{money(lost)} of it went to attempts that failed.")
    if guessed := total["guessed_micro_usd"]:
        notes.append(f"{money(guessed)} of it is counted by the proxy: the upstream reported no usage.")
    if unpriced := total["unpriced"]:
        notes.append(f"{count(unpriced, 'request')} went to models without a price, and stand here with $0.")
    return notes
