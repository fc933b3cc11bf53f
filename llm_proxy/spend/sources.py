"""Where sums come from: daily sums for whole days, the calls themselves for parts of days and for runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    FromClause,
    Select,
    and_,
    case,
    cast,
    func,
    literal,
    select,
)

from llm_proxy.records import tables as t
from llm_proxy.records.view import CostLabel, Status
from llm_proxy.spend.question import COLUMNS, TAG_KEY, TIMES, TOOL, Filters, Question
from llm_proxy.spend.rollup import DAY_US, FAILED, GUESSED, MEASURES

DAY = "day"


_Times = tuple[int | None, int | None]
"""From when on, and before when."""


class Span(msgspec.Struct, frozen=True):
    """Whole days from `first` to before `end` (None: without that end), and what lies beside them (µs)."""

    first: int | None
    end: int | None
    edges: tuple[tuple[int, int], ...] = ()


def span(question: Question) -> Span:
    """The time of a question in whole days and the parts of days at its two ends."""
    since, until = question.since_us, question.until_us
    first = None if since is None else -(-since // DAY_US)
    end = None if until is None else until // DAY_US
    if first is not None and end is not None and first > end:
        assert since is not None
        assert until is not None
        return Span(0, 0, ((since, until),))  # within one day
    edges: list[tuple[int, int]] = []
    if first is not None and since is not None and since < first * DAY_US:
        edges.append((since, first * DAY_US))
    if end is not None and until is not None and end * DAY_US < until:
        edges.append((end * DAY_US, until))
    return Span(first, end, tuple(edges))


def columns(question: Question) -> tuple[str, ...]:
    """What the store groups by: days for every span of time, and all tags together for each of them."""
    found: dict[str, None] = {}
    for group in question.by:
        if group in TIMES:
            found[DAY] = None
        elif group.startswith(TAG_KEY):
            found[COLUMNS["tag"]] = None
        elif group == TOOL:
            found[TOOL] = None
        else:
            found[COLUMNS[group]] = None
    return tuple(found)


def selects(
    question: Question, measures: tuple[str, ...] = MEASURES, *, postgresql: bool
) -> list[Select[Any]]:
    """What answers a question, but for tools: rows of `columns`, then the sums of `measures`."""
    names = [name for name in columns(question) if name != TOOL]
    if question.by_run:
        times = [(question.since_us, question.until_us)]
        return [_calls(question, names, times, measures, postgresql=postgresql)]
    days = span(question)
    found = [_days(t.spend, question, names, measures, days, postgresql=postgresql)]
    if days.edges:
        found.append(_calls(question, names, days.edges, measures, postgresql=postgresql))
    return found


def ranked_runs(question: Question, most: int, *, postgresql: bool) -> Select[Any]:
    """The `most` dearest groups of a question by run: rows of `columns`, and how many groups there are.

    No other sums are made of them: these stand in the index of a run's calls, so the calls needn't be read.
    """
    names, times = columns(question), [(question.since_us, question.until_us)]
    found = _calls(question, names, times, ("micro_usd", "requests"), postgresql=postgresql).subquery().c
    order = (found["micro_usd"].desc(), found["requests"].desc(), *(found[name] for name in names))
    return select(*(found[name] for name in names), func.count().over()).order_by(*order).limit(most)


def of_runs(question: Question, runs: Iterable[str], *, postgresql: bool) -> Select[Any]:
    """A question by run for those `runs` alone: rows of `columns`, then the sums of `MEASURES`."""
    times = [(question.since_us, question.until_us)]
    query = _calls(question, columns(question), times, MEASURES, postgresql=postgresql)
    return query.where(t.calls.c.run_id.in_(sorted(runs)))


def tools(question: Question, measures: tuple[str, ...], *, postgresql: bool) -> Select[Any]:
    """The shares of tools over whole days: rows of `columns`, then the sums of `measures`."""
    return _days(t.tool_spend, question, columns(question), measures, span(question), postgresql=postgresql)


def _days(
    table: FromClause,
    question: Question,
    names: Iterable[str],
    measures: Iterable[str],
    days: Span,
    *,
    postgresql: bool,
) -> Select[Any]:
    by = [table.c[name] for name in names]
    wanted = [*_within(table, days), *_where(table, question.where, postgresql=postgresql)]
    return select(*by, *(func.sum(table.c[name]) for name in measures)).where(*wanted).group_by(*by)


def conditions(table: FromClause, question: Question, *, postgresql: bool) -> list[ColumnElement[bool]]:
    """What a row of daily sums must be to count in a question over whole days."""
    return [*_within(table, span(question)), *_where(table, question.where, postgresql=postgresql)]


def _within(table: FromClause, days: Span) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if days.first is not None:
        found.append(table.c.day >= days.first)
    if days.end is not None:
        found.append(table.c.day < days.end)
    return found


def _calls(
    question: Question,
    names: Sequence[str],
    spans: Sequence[_Times],
    measures: tuple[str, ...],
    *,
    postgresql: bool,
) -> Select[Any]:
    c = t.calls.c
    columns = call_columns()
    by = [columns[name].label(name) for name in names]
    wanted = [*_where(t.calls, question.where, postgresql=postgresql), c.status != Status.OPEN.value]
    within = [
        and_(
            *([c.started_us >= since] if since is not None else []),
            *([c.started_us < until] if until is not None else []),
            literal(value=True),
        )
        for since, until in spans
    ]
    either = within[0] if len(within) == 1 else within[0] | within[1]
    counted = call_measures()
    # Runs first: then SQLite goes along the index of runs, and need not sort a million rows.
    order = [columns[name] for name in sorted(names, key=lambda name: name != COLUMNS["run"])]
    # PostgreSQL's sums of integers are decimals, which are slow to read.
    sums = [cast(func.sum(counted[name]), BigInteger).label(name) for name in measures]
    return select(*by, *sums).where(*wanted, either).group_by(*order)


def call_columns() -> dict[str, ColumnElement[Any]]:
    """A call's groups, as the daily sums have them."""
    c = t.calls.c
    found: dict[str, ColumnElement[Any]] = {name: c[name] for name in COLUMNS.values()}
    return found | {
        "target": func.coalesce(c.target, ""),
        "provider": func.coalesce(c.provider, ""),
        DAY: c.started_us // DAY_US,
    }


def call_measures() -> dict[str, ColumnElement[int]]:
    """What a call that ended adds to each sum: as `rollup.spend_row` counts it."""
    c = t.calls.c

    def zero(column: Column[Any]) -> ColumnElement[int]:
        return func.coalesce(column, 0)

    def one(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return case((condition, 1), else_=0)

    return {
        "requests": literal(1),
        "refused": one(c.status == Status.REFUSED.value),
        "failed": one(c.status.in_(sorted(FAILED))),
        "retried": one(c.attempts > 1),
        "unpriced": one(c.cost_label == CostLabel.UNPRICED.value),
        "input_tokens": zero(c.input_tokens),
        "output_tokens": zero(c.output_tokens),
        "cached_tokens": zero(c.cached_tokens),
        "cache_write_tokens": zero(c.cache_write_tokens),
        "reasoning_tokens": zero(c.reasoning_tokens),
        "micro_usd": zero(c.micro_usd),
        "lost_micro_usd": zero(c.lost_micro_usd),
        "guessed_micro_usd": case((c.cost_label.in_(sorted(GUESSED)), zero(c.micro_usd)), else_=0),
    }


def _where(table: FromClause, wanted: Filters, *, postgresql: bool) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [
        table.c[COLUMNS[name]] == value
        for name in ("agent", "team", "user", "run", "model", "target", "provider")
        if (value := getattr(wanted, name)) is not None
    ]
    if wanted.tag is not None:
        among = literal(",").concat(table.c.tags).concat(",")
        find = func.strpos if postgresql else func.instr
        found.append(find(among, f",{wanted.tag},") > 0)
    return found
