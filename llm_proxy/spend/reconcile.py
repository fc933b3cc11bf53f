"""Compares the books to the micro-dollar: records with calls, calls with sums, records with the ledger.

It goes through the calls day by day and holds no more than a day's groups and some hundred calls at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, select

from budgets import ended_us
from budgets.amounts import FIELDS
from budgets.sql_tables import TABLES
from llm_proxy.records import tables as t
from llm_proxy.records.view import Status
from llm_proxy.spend.drift import Drift, Found, Reconciled
from llm_proxy.spend.evidence import LEDGER, Proven, proven
from llm_proxy.spend.rollup import DAY_US, MEASURES, TOOL_MEASURES, Grouped, tool_rows
from llm_proxy.spend.sources import call_columns, call_measures
from llm_proxy.spend.tallies import Tallies

Progress = Callable[[int, int], None]
"""Told how many calls are done, of how many."""

_BATCH = 400
_FETCHED = 2_000
_COMPARED = (
    *("status", "cost_label", "micro_usd", "lost_micro_usd", "input_tokens", "output_tokens"),
    *("cached_tokens", "cache_write_tokens", "reasoning_tokens"),
)
_WIDTH = len(FIELDS)
_SPENT_AT = [FIELDS.index(name) for name in LEDGER]


def reconcile(
    connection: Connection, since_us: int | None, now_us: int, progress: Progress = lambda _done, _all: None
) -> Reconciled:
    """`connection` must see one moment throughout. With `since_us` (a midnight, UTC) only calls that began
    from then on are compared, and not the ledger, whose counters count from their beginning."""
    with Tallies(2 * _WIDTH) as ledger:
        work = _Reconciling(connection, since_us, now_us, progress, ledger)
        work.days()
        work.unknown_calls()
        compared = since_us is None
        counters = work.ledger() if compared else None
        return work.reconciled(counters)


class _Reconciling:
    """One reconciliation under way."""

    def __init__(
        self,
        connection: Connection,
        since_us: int | None,
        now_us: int,
        progress: Progress,
        ledger: Tallies,
    ) -> None:
        self._connection = connection
        self._since = since_us or 0
        self._now_us = now_us
        self._progress = progress
        self._ledger = ledger
        self._found = Found()
        self._open: set[str] = set()
        self._calls = self._micro_usd = self._tokens = self._days = self._holds = 0

    def reconciled(self, counters: int | None) -> Reconciled:
        found = self._found
        return Reconciled(
            drifts=tuple(found.shown),
            drift_count=found.count,
            calls=self._calls,
            open_calls=len(self._open),
            micro_usd=self._micro_usd,
            tokens=self._tokens,
            days=self._days,
            counters=counters,
            holds=None if counters is None else self._holds,
        )

    def days(self) -> None:
        """Every day on which calls began, and every day that has sums."""
        c = t.calls.c
        first = self._since // DAY_US
        begun = select(c.started_us // DAY_US).where(c.started_us >= self._since)
        summed = [select(table.c.day).where(table.c.day >= first) for table in (t.spend, t.tool_spend)]
        days = sorted({int(day) for query in (begun, *summed) for day in self._scalars(query.distinct())})
        whole = self._one(select(func.count()).select_from(t.calls).where(c.started_us >= self._since))
        for day in days:
            self._sums(day)
            self._tools(day, self._calls_of(day, whole))
            self._days += 1

    def unknown_calls(self) -> None:
        """Records of calls that aren't among the calls."""
        known = select(t.calls.c.id).where(t.calls.c.id == t.records.c.call_id).exists()
        query = select(t.records.c.call_id).where(t.records.c.call_id.is_not(None), ~known).distinct()
        for id_ in self._scalars(query):
            self._found.note(Drift("calls", f"call {id_}", "row", "recorded", "missing"))

    def ledger(self) -> int:
        """Every counter's figures; returns how many there are."""
        self._held()
        counters, number = TABLES.counters.c, 0
        columns = [counters[f"{kind}_{name}"] for kind in ("used", "held") for name in FIELDS]
        for rows in self._partitions(select(counters.key, *columns)):
            expected = self._ledger.take([row[0] for row in rows])
            for row in rows:
                should = expected.get(row[0], (0,) * (2 * _WIDTH))
                self._found.differ("ledger", f"counter {row[0]}", _named(should), _named(row[1:]))
            number += len(rows)
        for key, should in self._ledger.rest():
            over = ended_us(key)
            if over is not None and over < self._now_us and not any(should[_WIDTH:]):
                continue  # its span is over: it may have been cleared away
            self._found.differ("ledger", f"counter {key}", _named(should), {})
        return number

    def _held(self) -> None:
        """What holds set aside, and what those charged that expired under calls which are still open."""
        holds = TABLES.holds.c
        amounts = [holds[f"{kind}_{name}"] for kind in ("held", "floor") for name in FIELDS]
        for rows in self._partitions(
            select(holds.id, holds["keys"].label("counters"), holds.expired_us, *amounts)
        ):
            for row in rows:
                figures: list[int] = list(row[3:])
                if row.expired_us is None:
                    counted = [*[0] * _WIDTH, *figures[:_WIDTH]]
                    self._holds += 1
                elif row.id in self._open:
                    counted = figures[_WIDTH:]
                else:
                    continue
                for key in dict.fromkeys(_keys(row.counters)):
                    self._ledger.add(key, counted)

    def _sums(self, day: int) -> None:
        """The day's sums, group by group, against its calls."""
        c, columns, measures = t.calls.c, call_columns(), call_measures()
        by = [columns[name] for name in Grouped._fields]
        query = (
            select(*by, *(func.sum(measures[name]) for name in MEASURES))
            .where(c.started_us >= day * DAY_US, c.started_us < (day + 1) * DAY_US)
            .where(c.status != Status.OPEN.value)
            .group_by(*by)
        )
        kept = select(*(t.spend.c[name] for name in (*Grouped._fields, *MEASURES))).where(
            t.spend.c.day == day
        )
        expected, found = self._grouped(query), self._grouped(kept)
        for grouped in expected | found:
            should, does = expected.get(grouped, {}), found.get(grouped, {})
            self._found.differ("daily sums", f"{_date(day)}, {_told(grouped)}", should, does)

    def _grouped(self, query: Any) -> dict[Grouped, dict[str, int | str]]:
        width = len(Grouped._fields)
        return {
            Grouped(*row[:width]): dict(zip(MEASURES, map(int, row[width:]), strict=True))
            for row in self._connection.execute(query)
        }

    def _calls_of(self, day: int, whole: int) -> dict[str, dict[str, int | str]]:
        """The day's calls against their records; returns what each tool's share of the day must be."""
        c = t.calls.c
        within = (c.started_us >= day * DAY_US, c.started_us < (day + 1) * DAY_US)
        query = select(c.id, *(c[name] for name in _COMPARED)).where(*within).order_by(c.started_us, c.id)
        tools: dict[str, dict[str, int | str]] = defaultdict(lambda: defaultdict(int))
        for rows in self._partitions(query, _BATCH):
            records = self._records([row.id for row in rows])
            for row in rows:
                proof = self._proof(row, records.get(row.id, ()))
                if proof is not None:
                    self._count(row, proof, day, tools)
            self._progress(self._calls + len(self._open), whole)
        return tools

    def _records(self, ids: Sequence[str]) -> dict[str, list[tuple[str, bytes]]]:
        r = t.records.c
        query = select(r.call_id, r.kind, r.body).where(r.call_id.in_(ids))
        rows = self._connection.execute(query.order_by(r.call_id, r.writer, r.seq))
        return {
            id_: [(kind, bytes(body)) for _, kind, body in some]
            for id_, some in groupby(rows, lambda row: row[0])
        }

    def _proof(self, row: Row[Any], records: Sequence[tuple[str, bytes]]) -> Proven | None:
        """What the call's records prove, once its row is compared with them."""
        where = f"call {row.id}"
        try:
            proof = proven(records)
        except msgspec.DecodeError as error:
            self._found.note(Drift("records", where, "body", "readable", type(error).__name__))
            return None
        told: dict[str, int | str] = {name: getattr(row, name) or 0 for name in _COMPARED}
        self._found.differ("calls", where, {k: v or 0 for k, v in proof.figures.items()}, told)
        return proof

    def _count(self, row: Row[Any], proof: Proven, day: int, tools: dict[str, dict[str, int | str]]) -> None:
        if proof.ended:
            self._calls += 1
            self._micro_usd += proof.used[0]
            self._tokens += proof.used[1]
        else:
            self._open.add(row.id)
        for share in tool_rows(proof.spend(day), proof.proposed):
            sums = tools[share.tool]
            for name in TOOL_MEASURES:
                sums[name] = int(sums[name]) + getattr(share, name)
        if self._since:
            return
        figures = [0] * _WIDTH
        for at, figure in zip(_SPENT_AT, proof.used, strict=True):
            figures[at] = figure
        for key in proof.counters:
            self._ledger.add(key, figures)

    def _tools(self, day: int, expected: dict[str, dict[str, int | str]]) -> None:
        c = t.tool_spend.c
        query = select(c.tool, *(func.sum(c[name]) for name in TOOL_MEASURES)).where(c.day == day)
        found: dict[str, dict[str, int | str]] = {
            row[0]: dict(zip(TOOL_MEASURES, map(int, row[1:]), strict=True))
            for row in self._connection.execute(query.group_by(c.tool))
        }
        for tool in expected | found:
            should, does = expected.get(tool, {}), found.get(tool, {})
            self._found.differ("tool sums", f"{_date(day)}, tool {tool}", should, does)

    def _partitions(self, query: Any, size: int = _FETCHED) -> Iterator[Sequence[Row[Any]]]:
        with self._connection.execute(query, execution_options={"yield_per": size}) as rows:
            yield from rows.partitions()

    def _scalars(self, query: Any) -> Sequence[Any]:
        return self._connection.execute(query).scalars().all()

    def _one(self, query: Any) -> int:
        return int(self._connection.execute(query).scalar_one())


def _named(figures: Sequence[int]) -> dict[str, int | str]:
    names = [f"{kind} {name}" for kind in ("used", "held") for name in FIELDS]
    return dict(zip(names, figures, strict=True))


def _told(grouped: Grouped) -> str:
    return ", ".join(
        f"{name.removesuffix('_id')} {value}" for name, value in grouped._asdict().items() if value
    )


_keys = msgspec.json.Decoder(tuple[str, ...]).decode


def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
