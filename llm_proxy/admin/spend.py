"""Spend as operators get it: rows and their total as JSON or CSV, and charges as FOCUS."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from enum import StrEnum

import msgspec
from sqlalchemy import Connection, Engine

from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.shown import maybe_iso, usd
from llm_proxy.spend.cells import dollars, lines, text
from llm_proxy.spend.focus import focus
from llm_proxy.spend.question import BadQuestion, Filters, Question, asked, before
from llm_proxy.spend.rollup import MEASURES
from llm_proxy.spend.sums import Answer, Key, Row, Sums, answer

Cell = str | int | float | None
LINES = 50
"""Rows of a listing, unless told; CSV and FOCUS have all of them."""


class SpendFormat(StrEnum):
    """`focus` is CSV with the columns of the FinOps Open Cost and Usage Specification."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    FOCUS = "focus"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A question as an operator puts it. `since` and `until` are 7d, a date, or an ISO 8601 time."""

    by: str | None = None
    since: str | None = None
    until: str | None = None
    where: Filters = Filters()
    compare: bool = False
    limit: int | None = None


class SpendShown(msgspec.Struct, frozen=True, kw_only=True):
    """Rows are by time, the latest first, and then the dearest first; each begins with its groups.

    What is counted: `requests`, of which `refused`, `failed`, `retried` and `unpriced`; tokens; and the cost,
    of which `lost` went to attempts that failed and `guessed` was not reported by the upstream. By tool also
    `tool_calls` and `denied`. With a comparison each has `cost_before_*` and `change_*`.
    """

    by: tuple[str, ...]
    since_us: int | None
    since_at: str | None
    until_us: int | None
    """Calls that began at this moment don't count any more."""
    until_at: str | None
    rows: list[dict[str, Cell]]
    total: dict[str, Cell]
    """Of every row, those left out too."""
    left_out: int
    """Rows beyond the limit."""


class Spent(msgspec.Struct, frozen=True):
    """An answer, and the sums of the time before where a comparison is asked for."""

    told: Answer
    before: dict[Key, Sums] | None = None
    total_before: Sums = Sums()

    def rows(self) -> list[Row]:
        """The answer's rows, then those that only the time before had."""
        rows = list(self.told.rows)
        known = {row.key for row in rows}
        gone = [key for key in self.before or {} if key not in known]
        return [*rows, *(Row(key, Sums()) for key in gone)]


def spent(
    connection: Connection | None,
    wish: Wish,
    now_us: int,
    measures: tuple[str, ...] = MEASURES,
    most: int | None = None,
) -> Spent:
    """Raises `Unclear` where it can't be asked so. Of all that can be counted only `measures` are; no more
    than `most` rows need be told."""
    try:
        question = asked(wish.by or "agent", wish.since, wish.until, wish.where, now_us)
        earlier = before(question, now_us) if wish.compare else None
        if connection is None:
            return Spent(Answer(question, (), Sums()), None if earlier is None else {})
        told = answer(connection, question, measures, most if earlier is None else None)
        if earlier is None:
            return Spent(told)
        then = answer(connection, earlier, measures)
    except BadQuestion as error:
        raise Unclear(str(error)) from None
    return Spent(told, {row.key: row.sums for row in then.rows}, then.total)


def spend_shown(found: Spent, limit: int | None) -> SpendShown:
    """At most `limit` rows of it."""
    question, rows = found.told.question, found.rows()
    kept = rows[: LINES if limit is None else limit]
    return SpendShown(
        by=question.by,
        since_us=question.since_us,
        since_at=maybe_iso(question.since_us),
        until_us=question.until_us,
        until_at=maybe_iso(question.until_us),
        rows=[_row(found, row) for row in kept],
        total=_figures(question, found.told.total)
        | (_compared(found.told.total, found.total_before) if found.before is not None else {}),
        left_out=len(rows) - len(kept) + found.told.left_out,
    )


def spend_csv(found: Spent, limit: int | None) -> Iterator[str]:
    """A header, and a line per row; money in exact decimal dollars."""
    question = found.told.question
    counted = (*MEASURES[:5], "input_tokens", "output_tokens", "tokens", *MEASURES[7:10])
    counted += ("tool_calls", "denied") if question.by_tool else ()
    money = ("cost_usd", "lost_usd", "guessed_usd")
    header = (*question.by, *counted, *money, *(("cost_before_usd",) if found.before is not None else ()))

    def line(row: Row) -> list[str | int]:
        sums = row.sums
        cells: list[str | int] = [text(value) for value in row.key]
        cells += [sums.tokens if name == "tokens" else sums[name] for name in counted]
        cells += [dollars(sums[name]) for name in ("micro_usd", "lost_micro_usd", "guessed_micro_usd")]
        if found.before is not None:
            cells.append(dollars(found.before.get(row.key, Sums())["micro_usd"]))
        return cells

    return lines(header, map(line, found.rows()[:limit]))


def focus_csv(connection: Connection | None, wish: Wish, account: str, now_us: int) -> Iterator[str]:
    """FOCUS charges of the whole days (UTC) that the time touches. Raises `Unclear`."""
    if wish.by is not None or wish.compare:
        raise Unclear(
            "FOCUS has its own rows: a charge for each day, agent, team, user, model, target and tags."
        )
    try:
        question = asked("agent", wish.since, wish.until, wish.where, now_us, whole=True)
    except BadQuestion as error:
        raise Unclear(str(error)) from None
    if question.by_run:
        raise Unclear("A charge is a day's, not a run's: leave out --run, or take another format.")
    return focus(connection, question, account, wish.limit)


def focus_sent(engine: Engine, wish: Wish, account: str, now_us: int) -> Generator[bytes]:
    """The same to be sent: it holds a connection until it's closed. Raises `Unclear` at once."""
    connection = engine.connect()
    try:
        charges = focus_csv(connection, wish, account, now_us)
    except BaseException:
        connection.close()
        raise
    return _closing(connection, charges)


def _closing(connection: Connection, charges: Iterator[str]) -> Generator[bytes]:
    with connection:
        for charge in charges:
            yield charge.encode()


def csv_sent(found: Spent, limit: int | None) -> Generator[bytes]:
    """A spend listing's CSV to be sent."""
    return (line.encode() for line in spend_csv(found, limit))


def _row(found: Spent, row: Row) -> dict[str, Cell]:
    question = found.told.question
    shown: dict[str, Cell] = dict(zip(question.by, row.key, strict=True))
    shown |= _figures(question, row.sums)
    return shown if found.before is None else shown | _compared(row.sums, found.before.get(row.key, Sums()))


def _figures(question: Question, sums: Sums) -> dict[str, Cell]:
    counted: dict[str, Cell] = {name: sums[name] for name in MEASURES if not name.endswith("micro_usd")}
    counted["tokens"] = sums.tokens
    if question.by_tool:
        counted |= {name: sums[name] for name in ("tool_calls", "denied")}
    for name in ("cost", "lost", "guessed"):
        micro = sums["micro_usd" if name == "cost" else f"{name}_micro_usd"]
        counted |= {f"{name}_usd": usd(micro), f"{name}_micro_usd": micro}
    return counted


def _compared(now: Sums, then: Sums) -> dict[str, Cell]:
    was, change = then["micro_usd"], now["micro_usd"] - then["micro_usd"]
    return {
        "requests_before": then["requests"],
        "cost_before_usd": usd(was),
        "cost_before_micro_usd": was,
        "change_usd": usd(change),
        "change_micro_usd": change,
        "change_percent": round(100 * change / was, 1) if was else None,
    }
