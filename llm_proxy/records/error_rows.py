"""What processes measured of their token counts, as rows of the store. Everything here blocks on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, case, select

from llm_proxy.records.prepared import upsert
from llm_proxy.records.tables import token_errors

_LONGEST_KEY = 256
"""What the table takes."""
_AT_ONCE = 1_000
"""Rows in one statement: SQLite takes 32,766 parameters."""

Row = tuple[int, int, int]
"""Answers, and the mean and worst ratio of reported to counted tokens in millionths."""


def read(connection: Connection, most: int) -> dict[str, Row]:
    """Rows by their key, at most so many: those that were added to last."""
    columns = token_errors.c
    query = select(columns.key, columns.samples, columns.mean_ppm, columns.worst_ppm)
    last = query.order_by(columns.changed_us.desc(), columns.key).limit(most)
    return {key: (samples, mean, worst) for key, samples, mean, worst in connection.execute(last)}


def add(connection: Connection, rows: Mapping[str, Row], now_us: int, fades: int) -> None:
    """Adds what was measured since to what stands there.

    A row's own worst ratio comes nearer to the mean by one part in `fades` for each answer that is added.
    """
    values: list[dict[str, object]] = [
        {"key": key, "samples": samples, "mean_ppm": mean, "worst_ppm": worst, "changed_us": now_us}
        for key, (samples, mean, worst) in sorted(rows.items())  # in one order: no two processes deadlock
        if len(key) <= _LONGEST_KEY
    ]
    for start in range(0, len(values), _AT_ONCE):
        connection.execute(_merging(connection, values[start : start + _AT_ONCE], fades))


def _merging(connection: Connection, values: list[dict[str, object]], fades: int) -> Any:
    insert = upsert(token_errors, connection.dialect).values(values)
    old, new = token_errors.c, insert.excluded
    samples = old.samples + new.samples
    mean = (old.mean_ppm * old.samples + new.mean_ppm * new.samples) // samples
    above = case((old.worst_ppm > mean, old.worst_ppm - mean), else_=0)
    steps = case((new.samples < fades, new.samples), else_=fades)
    faded = old.worst_ppm - above * steps // fades
    worst = case((new.worst_ppm > faded, new.worst_ppm), else_=faded)
    changes = {"samples": samples, "mean_ppm": mean, "worst_ppm": worst, "changed_us": new.changed_us}
    return insert.on_conflict_do_update(index_elements=["key"], set_=changes)
