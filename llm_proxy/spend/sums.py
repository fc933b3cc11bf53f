"""Answers questions to the sums: one row per group, and the total of them all, exact to the micro-dollar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from heapq import merge
from typing import Any

import msgspec
from sqlalchemy import Connection, Select

from llm_proxy.spend.question import COLUMNS, TAG_KEY, TOOL, BadQuestion, Question
from llm_proxy.spend.rollup import MEASURES
from llm_proxy.spend.sources import DAY, columns, of_runs, ranked_runs, selects, tools

COUNTED = (*MEASURES, "tool_calls", "denied")
"""What is counted of a group, in order; the last two by tool only."""
MOST_ROWS = 500_000
"""Groups that are put together at once; a question with more of them has to be a narrower one."""
_AT = {name: place for place, name in enumerate(COUNTED)}
_OF_TOOLS = ("requests", "input_tokens", "output_tokens", "micro_usd", "tool_calls", "denied")
_EPOCH = date(1970, 1, 1)
_FETCHED = 5_000
_AT_ONCE = 2_000

Key = tuple[str, ...]
_Stored = Sequence[Any]
"""A row as the store gave it: its groups, then its sums."""


class Sums(msgspec.Struct, frozen=True, gc=False):
    """What was counted, in the order of `COUNTED`."""

    figures: tuple[int, ...] = (0,) * len(COUNTED)

    def __getitem__(self, name: str) -> int:
        return self.figures[_AT[name]]

    @property
    def tokens(self) -> int:
        return self["input_tokens"] + self["output_tokens"]


class Row(msgspec.Struct, frozen=True, gc=False):
    """One group: the values that it has in common, in the order of the question, and what they add up to."""

    key: Key
    sums: Sums


class Answer(msgspec.Struct, frozen=True):
    """Rows, by time (the latest first) and then the dearest first; and the total of every one of them."""

    question: Question
    rows: tuple[Row, ...]
    total: Sums
    left_out: int = 0
    """Rows beyond those that were asked for, which are in the total."""


def answer(
    connection: Connection,
    question: Question,
    measures: tuple[str, ...] = MEASURES,
    most: int | None = None,
) -> Answer:
    """Reads the store. Raises `BadQuestion` where there are more than `MOST_ROWS` groups.

    Only `measures` are counted, in the order of `MEASURES`: few of them are read much faster. With `most` no
    more rows need be told; of runs, which may be very many, the others aren't even read.
    """
    if most is not None and measures is MEASURES and _is_of_runs(question):
        return _dearest_runs(connection, question, most)
    folded = _Folded(question)
    postgresql = connection.dialect.name == "postgresql"
    stored = columns(question)
    untooled = tuple(name for name in stored if name != TOOL)
    for statement in selects(question, measures, postgresql=postgresql):
        folded.read(connection, statement, untooled, measures)
    if question.by_tool:
        of_tools = _OF_TOOLS if measures is MEASURES else tuple([n for n in _OF_TOOLS if n in measures])
        folded.read(connection, tools(question, of_tools, postgresql=postgresql), stored, of_tools)
    return folded.answer()


def _is_of_runs(question: Question) -> bool:
    """Whether its groups are those of the store, one of them the run."""
    return "run" in question.by and all(group in COLUMNS for group in question.by)


def _dearest_runs(connection: Connection, question: Question, most: int) -> Answer:
    """Ranked first, and then read: what calls cost is found fast, and much else of them isn't."""
    postgresql, names = connection.dialect.name == "postgresql", columns(question)
    ranked = connection.execute(ranked_runs(question, most, postgresql=postgresql)).all()
    if not ranked:
        return Answer(question, (), Sums())
    width, at = len(names), names.index(COLUMNS["run"])
    runs = {row[at] for row in ranked}
    read = connection.execute(of_runs(question, runs, postgresql=postgresql)).all()
    found = {tuple(row[:width]): _sums(row[width:]) for row in read}
    key_of = _keys(question, names)
    rows = tuple([Row(key_of(row), found[tuple(row[:width])]) for row in ranked])
    left_out = int(ranked[0][-1]) - len(rows)
    if left_out:
        total = answer(connection, msgspec.structs.replace(question, by=())).total
    else:
        total = Sums(tuple(_added([row.sums.figures for row in rows])))
    return Answer(question, rows, total, left_out)


def _sums(figures: Sequence[Any]) -> Sums:
    return Sums((*map(int, figures), 0, 0))


class _Folded:
    """Groups as the store gave them, put together as they were asked for."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._found: dict[Key, list[int]] = {}

    def read(
        self, connection: Connection, statement: Select[Any], stored: Sequence[str], measures: Sequence[str]
    ) -> None:
        """Adds up what `statement` gives: the groups `stored`, then `measures`."""
        places, width = [_AT[name] for name in measures], len(stored)
        key_of = _keys(self._question, stored)
        with connection.execute(statement, execution_options={"yield_per": _FETCHED}) as rows:
            for row in rows:
                if row[width] is None:
                    continue  # a sum of nothing
                figures = [int(figure) for figure in row[width:]]
                key = key_of(row)
                self._add(key, places, figures, 1)
                if TOOL in stored:
                    # What went to a tool isn't in the row of what went to none.
                    at = self._question.by.index(TOOL)
                    self._add((*key[:at], "", *key[at + 1 :]), places, figures, -1)

    def _add(self, key: Key, places: Sequence[int], figures: Sequence[int], sign: int) -> None:
        sums = self._found.get(key)
        if sums is None:
            if len(self._found) >= MOST_ROWS:
                raise BadQuestion(
                    f"There are over {MOST_ROWS:,} groups: ask for a shorter time or fewer groups, or filter."
                )
            if len(figures) == len(MEASURES):
                self._found[key] = [*figures, 0, 0]
                return
            sums = self._found[key] = [0] * len(COUNTED)
        for place, figure in zip(places, figures, strict=True):
            if sign > 0 or place < len(MEASURES):
                sums[place] += sign * figure

    def answer(self) -> Answer:
        rows = [Row(key, Sums(tuple(sums))) for key, sums in self._found.items() if any(sums)]
        total = _added([_added([row.sums.figures for row in piece]) for piece in _pieces(rows)])
        rows = _sorted(rows)
        for at in reversed([at for at, group in enumerate(self._question.by) if group in _PERIODS]):
            rows.sort(key=lambda row, at=at: row.key[at], reverse=True)
        return Answer(self._question, tuple(rows), Sums(tuple(total)) if rows else Sums())


def _pieces(rows: list[Row]) -> list[list[Row]]:
    """What is done to many rows at one go would hold up every other thread."""
    return [rows[at : at + _AT_ONCE] for at in range(0, len(rows), _AT_ONCE)]


def _added(figures: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*figures, strict=True)]


def _sorted(rows: list[Row]) -> list[Row]:
    """The dearest first."""
    return list(merge(*(sorted(piece, key=_dearest) for piece in _pieces(rows)), key=_dearest))


def _dearest(row: Row) -> tuple[int, int, Key]:
    return -row.sums["micro_usd"], -row.sums["requests"], row.key


def _keys(question: Question, stored: Sequence[str]) -> Callable[[_Stored], Key]:
    """Makes the groups of a stored row into those that were asked for."""
    parts = [_part(group, {name: at for at, name in enumerate(stored)}) for group in question.by]
    return lambda row: tuple([part(row) for part in parts])


def _part(group: str, stored: dict[str, int]) -> Callable[[_Stored], str]:
    if period := _PERIODS.get(group):
        return _remembering(lambda day: period(_EPOCH + timedelta(days=int(day))), stored[DAY])
    if group.startswith(TAG_KEY):
        key = group.removeprefix(TAG_KEY)
        return _remembering(lambda tags: value_of(key, tags), stored[COLUMNS["tag"]])
    at = stored.get(COLUMNS.get(group, group))
    return (lambda _: "") if at is None else lambda row: str(row[at])


def _remembering(made: Callable[[Any], str], at: int) -> Callable[[_Stored], str]:
    known: dict[Any, str] = {}

    def of(row: _Stored) -> str:
        text = known.get(row[at])
        if text is None:
            text = known[row[at]] = made(row[at])
        return text

    return of


def value_of(key: str, tags: str) -> str:
    """What stands behind `key=` or `key:` in a comma list; several are joined, none is empty."""
    starts = (f"{key}=", f"{key}:")
    return ",".join([tag[len(key) + 1 :] for tag in tags.split(",") if tag.startswith(starts)])


def _week(day: date) -> str:
    year, week, _ = day.isocalendar()
    return f"{year:04}-W{week:02}"


_PERIODS: dict[str, Callable[[date], str]] = {
    "day": date.isoformat,
    "week": _week,
    "month": lambda day: f"{day:%Y-%m}",
}
